// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

namespace tandem::uacce::detail {

/// What is accounted to one tenant, summed over its clients. Kept as long as one of them lives.
struct Tenant {
  explicit Tenant(std::uint32_t tenant_id) : id(tenant_id) {}

  const std::uint32_t id;
  /// Bytes of operands and fixed costs that engine threads spent on this tenant; written and read
  /// by engine threads (relaxed: a stale value only shifts who is next).
  std::atomic<std::uint64_t> served{0};
  std::atomic<std::uint64_t> reserved_bytes{0};  ///< quota; written by control calls
  std::atomic<std::uint32_t> queues{0};          ///< quota; written by control calls
  /// Engine threads lost to accesses that never returned; written by the watchdog, read by open().
  std::atomic<std::uint32_t> threads_lost{0};

  /// Whether it lost so many threads that its queues end and open() refuses it.
  bool expelled() const { return threads_lost.load(std::memory_order_relaxed) >= kMaxThreadsLost; }
  static constexpr std::uint32_t kMaxThreadsLost = 4;

  /// Takes `amount` of a quota. Returns: whether there was room.
  template <class T>
  static bool take(std::atomic<T>& used, T amount, T most) {
    T before = used.load(std::memory_order_relaxed);
    do {
      if (before > most || amount > most - before) return false;
    } while (!used.compare_exchange_weak(before, static_cast<T>(before + amount),
                                         std::memory_order_relaxed));
    return true;
  }
  template <class T>
  static void give_back(std::atomic<T>& used, T amount) {
    used.fetch_sub(amount, std::memory_order_relaxed);
  }
};

}  // namespace tandem::uacce::detail
