// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/base/mutex.hpp"

namespace tandem::rcu {

class srcu_domain;

/// What the inline reader path in srcu.hpp touches. Private: srcu.hpp alone includes it from
/// outside the module.
namespace detail {

/// What readers on one CPU have counted, per index. One line per CPU, which only that CPU writes.
struct alignas(kCacheLine) SrcuSlot {
  std::atomic<std::uint64_t> locks[2] = {};
  std::atomic<std::uint64_t> unlocks[2] = {};
};
static_assert(sizeof(SrcuSlot) == kCacheLine);

/// The sections of one thread in one domain, per index. Owner thread only, including its signal
/// handlers: an entry is claimed by counting, before it is named, and free with nothing open.
///
/// They change by add_on_this_thread(). Two that only grow, since one that goes up and down is a
/// chain of twice as many stores that each wait for the one before.
struct OpenSections {
  struct alignas(8) Counts {
    std::uint32_t opened = 0;
    std::uint32_t closed = 0;
  };
  srcu_domain* domain = nullptr;  // while a section is open, it lives
  Counts counts[2];

  /// As of one moment, whatever signal handlers open and close meanwhile.
  std::uint32_t open(unsigned index) const noexcept {
    Counts both;
    __atomic_load(&counts[index], &both, __ATOMIC_RELAXED);
    return both.opened - both.closed;
  }
  /// As open() != 0, but false if a signal handler came between the loads.
  bool surely_open(unsigned index) const noexcept {
    const std::uint32_t opened = __atomic_load_n(&counts[index].opened, __ATOMIC_RELAXED);
    light_fence();
    const std::uint32_t closed = __atomic_load_n(&counts[index].closed, __ATOMIC_RELAXED);
    return static_cast<std::int32_t>(opened - closed) > 0;
  }
  bool any() const noexcept { return open(0) != 0 || open(1) != 0; }
};

/// Entries for sections in further domains at once. From the kernel, since a signal handler may be
/// the one that needs them, when the thread it interrupts is in the allocator.
struct FurtherSections {
  FurtherSections* next = nullptr;
  OpenSections entries[(4096 - sizeof(void*)) / sizeof(OpenSections)];
};
static_assert(sizeof(FurtherSections) <= 4096);

/// All that a thread has open: what a forked child carries over.
struct ThreadSections {
  OpenSections entries[8];  // the inline path looks at the first
  std::atomic<FurtherSections*> further{nullptr};
};

#define TANDEM_RCU_TLS __attribute__((tls_model("initial-exec")))
extern constinit thread_local ThreadSections thread_sections TANDEM_RCU_TLS;
#undef TANDEM_RCU_TLS

/// A lock that nobody waits for inside: who does not get it goes away. Async-signal-safe.
class TANDEM_CAPABILITY("role") Role {
 public:
  bool try_lock() noexcept TANDEM_TRY_ACQUIRE(true) {
    return taken_.load(std::memory_order_relaxed) == 0 &&
           taken_.exchange(1, std::memory_order_acquire) == 0;
  }
  void unlock() noexcept TANDEM_RELEASE() { taken_.store(0, std::memory_order_release); }
  /// For a forked child, in which the holder does not exist.
  void reset() noexcept { taken_.store(0, std::memory_order_relaxed); }

 private:
  std::atomic<std::uint32_t> taken_{0};
};

}  // namespace detail
}  // namespace tandem::rcu
