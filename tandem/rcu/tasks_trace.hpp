// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/check.hpp"
#include "tandem/rcu/detail/tasks_flavours.hpp"
#include "tandem/rcu/tasks_domain_base.hpp"

/// RCU Tasks Trace: explicit markers for instrumented code, anywhere and at next to no cost.
///
///     tasks_trace_lock();
///     run(*table.load(std::memory_order_acquire));     // may sleep
///     tasks_trace_unlock();
///
/// Sections may block, sleep, fault, nest, and open in signal handlers, also in one that interrupts
/// these two functions; threads need no registration. The reader executes no fence, no atomic
/// read-modify-write and no shared store: a grace period interrupts the CPUs that run this process
/// instead (membarrier). Where the kernel refuses that, the reader fences.
///
/// Compared with a sleepable domain (SRCU), which keeps its readers apart per domain: here, as in
/// the kernel, a thread has one section for all domains, so a section that sleeps for long holds
/// all of them up.
///
/// A thread's exit ends its section. Fork: a section that is open in the forking thread is open in
/// the child's.
///
/// Spec: Linux kernel documentation, "A Tour Through RCU's Requirements", Tasks Trace RCU
///       (rcu_read_lock_trace, rcu_read_unlock_trace).
namespace tandem::rcu {

namespace detail {

/// A section's state: the sequence it began with, above its depth.
inline constexpr unsigned kTraceDepthBits = 16;
inline constexpr std::uint64_t kTraceDepthMask = (std::uint64_t{1} << kTraceDepthBits) - 1;

/// The first section of this thread in this process.
void attach_trace_entry() noexcept;

/// For readers that may not leave the fence to membarrier. Sets `state`, then fences. (A)
void enter_fenced(TaskEntry& self, std::uint64_t state) noexcept;

}  // namespace detail

/// Enters a section. Nests up to 65535 deep (checked); unlock on the same thread.
///
/// Async-signal-safe. (A thread's first section takes a lock, with signals blocked, and sets a
/// pthread key; glibc allocates for that only where the program made 32 keys before its main().)
/// Ordering: (A) our state store is visible before any load in the section; pairs with the heavy
///           fence (F) of a grace period. (B) the sequence load acquires what updaters did before
///           they advanced it to that value.
TANDEM_RCU_READER_PATH inline void tasks_trace_lock() noexcept {
  detail::TaskEntry& self = detail::here(&detail::tasks_trace_entry);
  if (self.generation != detail::process.generation.load(std::memory_order_relaxed)) [[unlikely]] {
    detail::attach_trace_entry();
  }
  // A handler that interrupts us between load and store leaves the word as it found it.
  const std::uint64_t state = self.state.load(std::memory_order_relaxed);
  if (state != 0) {
    TANDEM_CHECK((state & detail::kTraceDepthMask) != detail::kTraceDepthMask);
    self.state.store(state + 1, detail::kReaderOrder);  // as in detail::Reader::nest()
    return;
  }
  const std::uint64_t sequence =
      detail::tasks_trace_flavour.sequence.load(std::memory_order_acquire);  // (B)
  const std::uint64_t entered = sequence << detail::kTraceDepthBits | 1;
  if (!detail::kInstrumented && detail::light_readers.load(std::memory_order_relaxed)) [[likely]] {
    self.state.store(entered, std::memory_order_release);
    light_fence();  // (A)
  } else {
    detail::enter_fenced(self, entered);  // (A)
  }
}

/// Leaves the section that the last lock on this thread entered (checked: there is one).
///
/// Async-signal-safe.
/// Ordering: (C) the state store releases every access of the section; pairs with the look of a
///           grace period. (D) it is visible before the load of `wake`; pairs with (F).
TANDEM_RCU_READER_PATH inline void tasks_trace_unlock() noexcept {
  detail::TaskEntry& self = detail::here(&detail::tasks_trace_entry);
  const std::uint64_t state = self.state.load(std::memory_order_relaxed);
  if ((state & detail::kTraceDepthMask) > 1) {
    self.state.store(state - 1, detail::kReaderOrder);
    return;
  }
  TANDEM_CHECK(state != 0);
  self.state.store(0, detail::kReaderOrder);  // (C)
  light_fence();                              // (D)
  if (self.wake.load(std::memory_order_relaxed) != 0) [[unlikely]] {
    detail::wake_waiters(detail::tasks_trace_flavour, self);
  }
}

/// Whether the calling thread is in a section. For assertions; async-signal-safe.
TANDEM_RCU_READER_PATH inline bool tasks_trace_held() noexcept {
  return detail::here(&detail::tasks_trace_entry).state.load(std::memory_order_relaxed) != 0;
}

/// A domain whose grace periods wait for the sections of all threads. Satisfies Lockable.
class tasks_trace_domain : public tasks_domain_base {
 public:
  /// A section for a scope; for templates over the three domains.
  struct section {
    explicit section(tasks_trace_domain&) noexcept { tasks_trace_lock(); }
    ~section() { tasks_trace_unlock(); }
    section(const section&) = delete;
    section& operator=(const section&) = delete;
  };

  tasks_trace_domain() noexcept;
  /// Runs what call() was given. Not in a section (checked).
  ~tasks_trace_domain();

  void lock() noexcept { tasks_trace_lock(); }
  bool try_lock() noexcept {
    tasks_trace_lock();
    return true;
  }
  void unlock() noexcept { tasks_trace_unlock(); }

  /// Returns once every section that began before the call has ended. Not in a section (checked).
  void synchronize() noexcept;

  /// Has `run(&head)` called once every section that began before the call has ended. Outside
  /// sections, past 65536 waiting callbacks, it sleeps up to 1 ms for the domain's thread to catch
  /// up; in a section it never sleeps.
  void call(callback_head& head, void (*run)(callback_head*) noexcept) noexcept;
  /// Likewise for a function object, which is moved to the heap. Errors: std::bad_alloc.
  template <class F>
  void call(F function) {
    callback_head& head = make_callback(std::move(function));
    call(head, head.run);
  }

  /// Returns once the callbacks handed in before have returned; may run some of them itself. Not in
  /// a section (checked).
  void barrier() noexcept;
};

}  // namespace tandem::rcu
