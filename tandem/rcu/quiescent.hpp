// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

#include "tandem/rcu/rcu.hpp"

/// Further kinds of readers. They are states of the same registry that plain sections use: one
/// rcu_synchronize() waits for all kinds, and a thread may mix them.
namespace tandem::rcu {

/// A thread that is a reader all the time, save at its quiescent states: for event loops.
///
///     quiescent_reader reader;
///     for (;;) {
///       reader.offline();
///       events = poll(…);         // may block
///       reader.online();
///       for (event : events) handle(event), reader.quiescent();
///     }
///
/// Between construction and destruction everything the thread does is one section, which
/// quiescent() ends and begins anew; no lock() or unlock() is needed, and those that run do
/// nothing. While online it must not block for long: every grace period of the domain waits for it.
/// rcu_synchronize(), rcu_barrier() and cond_synchronize() are quiescent states.
///
/// A quiescent state costs a load and a comparison while no grace period has begun, else a fence;
/// grace periods need no inter-processor interrupt for threads that are such readers only.
///
/// A thread that is online and retires more than is reclaimed cannot be made to wait there, where
/// it may hold pointers. It waits, as rcu_obj_base::retire() says, in its next quiescent() or
/// offline(); and where threads run what they retired themselves, that is where it does.
///
/// Thread safety: all calls from the constructing thread. One per thread and domain (checked).
/// Fork:          the child's thread goes on as it was.
/// Spec:          Desnoyers et al., "User-Level Implementations of Read-Copy Update", QSBR.
class quiescent_reader {
 public:
  /// Goes online. Not inside a section of `dom` (checked). Allocates as rcu_domain::lock() does.
  explicit quiescent_reader(rcu_domain& dom = rcu_default_domain()) noexcept;
  /// Goes offline.
  ~quiescent_reader();
  quiescent_reader(const quiescent_reader&) = delete;
  quiescent_reader& operator=(const quiescent_reader&) = delete;

  /// Here the thread holds no pointer that it read before. Not inside a section of `dom`, where it
  /// does nothing.
  TANDEM_RCU_READER_PATH void quiescent() noexcept {
    if (sequence_.load(std::memory_order_acquire) != self_.state.load(std::memory_order_relaxed)) {
      renew();
    }
  }
  /// The thread reads nothing until online(), and holds nobody up.
  void offline() noexcept;
  void online() noexcept;
  bool is_online() const noexcept { return self_.online; }

 private:
  void renew() noexcept;

  rcu_domain& domain_;
  detail::Reader& self_;
  const std::atomic<std::uint64_t>& sequence_;
};

/// A section that executes its own fence: dearer to enter (about 20 ns), but grace periods of a
/// domain whose readers are all of this kind or quiescent interrupt no other CPU.
///
/// Use it as the domain itself: `fenced_reader reader(dom); std::scoped_lock section(reader);`.
/// Thread safety: as rcu_domain::lock().
class fenced_reader {
 public:
  explicit fenced_reader(rcu_domain& dom = rcu_default_domain()) noexcept : domain_(dom) {}
  void lock() noexcept;
  bool try_lock() noexcept {
    lock();
    return true;
  }
  void unlock() noexcept { domain_.unlock(); }

 private:
  rcu_domain& domain_;
};

}  // namespace tandem::rcu
