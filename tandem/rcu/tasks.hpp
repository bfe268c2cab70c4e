// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/rcu/detail/tasks_flavours.hpp"
#include "tandem/rcu/tasks_domain_base.hpp"

/// RCU Tasks: regions without markers, which end where the thread says that it may wait.
///
///     const tasks_domain::task me;          // from here on grace periods wait for this thread
///     for (;;) {
///       run(*table.load(std::memory_order_acquire));
///       tasks_quiescent();                  // keeps no pointer across this line
///       { const tasks_idle idle; wait_for_work(); }
///     }
///
/// A task's region lasts from one voluntary point to the next: a call of tasks_quiescent(), a
/// tasks_idle scope, or a call of synchronize() or barrier(). Being preempted, blocking elsewhere,
/// and call() end no region. Reading costs nothing at all; a grace period lasts as long as the
/// longest region, which is what it is for: code whose every instruction may be a use, such as
/// trampolines and probes.
///
/// Threads that are no task are not waited for. A task's exit ends its region and registration.
///
/// Spec: Linux kernel documentation, "A Tour Through RCU's Requirements", Tasks RCU.
namespace tandem::rcu {

/// Ends the calling task's region and begins the next: about a nanosecond, no system call unless a
/// grace period sleeps for this thread. No effect in a thread that is no task, or is idle.
///
/// Ordering: (B) acquires what updaters did before the grace periods it lets pass; (C) releases
///           every access of the region to them.
TANDEM_RCU_READER_PATH inline void tasks_quiescent() noexcept {
  detail::TaskEntry& self = detail::here(&detail::tasks_entry);
  if (self.state.load(std::memory_order_relaxed) == 0) return;
  self.state.store(detail::tasks_flavour.sequence.load(std::memory_order_acquire),  // (B)
                   detail::kReaderOrder);                                           // (C)
  light_fence();
  if (self.wake.load(std::memory_order_relaxed) != 0) [[unlikely]] {
    detail::wake_waiters(detail::tasks_flavour, self);
  }
}

/// The calling task is outside regions while this lives, and grace periods do not wait for it: for
/// around calls that block. Nests. No effect in a thread that is no task.
///
/// Fork: a child made inside the scope is idle as well.
class tasks_idle {
 public:
  TANDEM_RCU_READER_PATH tasks_idle() noexcept
      : was_online_(detail::here(&detail::tasks_entry).state.load(std::memory_order_relaxed) != 0) {
    if (was_online_) enter();
  }
  ~tasks_idle() {
    if (was_online_) leave();
  }
  tasks_idle(const tasks_idle&) = delete;
  tasks_idle& operator=(const tasks_idle&) = delete;

 private:
  static void enter() noexcept;
  static void leave() noexcept;
  const bool was_online_;
};

/// A domain whose grace periods wait for each task to pass a voluntary point.
class tasks_domain : public tasks_domain_base {
 public:
  /// Makes the thread that constructs it a task until it is destroyed, on the same thread. Nests.
  /// Not inside a tasks_idle scope (checked).
  class task {
   public:
    task() noexcept;
    ~task();
    task(const task&) = delete;
    task& operator=(const task&) = delete;
  };

  /// For templates over the three domains: a region's markers, of which this flavour has none.
  struct section {
    explicit section(tasks_domain&) noexcept {}
    ~section() {}
  };

  tasks_domain() noexcept;
  /// Runs what call() was given; a voluntary point.
  ~tasks_domain();

  /// Returns once every task has passed a voluntary point. Itself one for the calling task.
  void synchronize() noexcept;

  /// Has `run(&head)` called once every task has passed a voluntary point after the call. Ends no
  /// region. Past 65536 waiting callbacks it sleeps up to 1 ms for the domain's thread to catch up.
  void call(callback_head& head, void (*run)(callback_head*) noexcept) noexcept;
  /// Likewise for a function object, which is moved to the heap. Errors: std::bad_alloc.
  template <class F>
  void call(F function) {
    callback_head& head = make_callback(std::move(function));
    call(head, head.run);
  }

  /// Returns once the callbacks handed in before have returned; may run some of them itself,
  /// outside regions. A voluntary point for the calling task.
  void barrier() noexcept;
};

}  // namespace tandem::rcu
