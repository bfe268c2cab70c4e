// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "tandem/iommu/iommu.hpp"
#include "tandem/uacce/detail/table_memory.hpp"

namespace tandem::uacce::detail {

/// What is accounted to one user, summed over its tenants. Kept as long as one of them is, or an
/// engine thread is lost to it.
struct UserAccount {
  /// Engine threads in accesses that have not returned; written by the watchdog, read by open().
  std::atomic<std::uint32_t> threads_lost{0};
};

/// What is accounted to one tenant, summed over its clients. Kept as long as something of one of
/// them is.
struct Tenant {
  Tenant(std::uint32_t tenant_id, std::shared_ptr<UserAccount> of, std::uint64_t table_bytes)
      : id(tenant_id),
        user(std::move(of)),
        tables(table_bytes / iommu::kPageBytes),
        threads_lost(user->threads_lost) {}

  const std::uint32_t id;
  const std::shared_ptr<UserAccount> user;
  /// What engine threads spent on this tenant, as Queue::Batch::cost; written and read by engine
  /// threads (relaxed: a stale value only shifts who is next).
  std::atomic<std::uint64_t> served{0};
  /// How much of that may have come in one piece: others may lag by as much. Written and read as
  /// `served`.
  std::atomic<std::uint64_t> stride{0};

  void bill(std::uint64_t cost) {
    served.fetch_add(cost, std::memory_order_relaxed);
    const std::uint64_t before = stride.load(std::memory_order_relaxed);
    stride.store(cost < before ? std::max(cost, before - cost) : cost, std::memory_order_relaxed);
  }
  std::atomic<std::uint64_t> reserved_bytes{0};  ///< quota; written by control calls
  std::atomic<std::uint64_t> ring_bytes{0};      ///< quota; likewise
  std::atomic<std::uint32_t> queues{0};          ///< quota; likewise
  TableQuota tables;                             ///< quota; taken from by page requests
  std::atomic<std::uint32_t>& threads_lost;      ///< the user's

  /// Whether so many threads are lost to its user that its queues end and open() refuses it.
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
