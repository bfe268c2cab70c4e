// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/rcu/detail/tasks_flavours.hpp"
#include "tandem/rcu/tasks_domain_base.hpp"

/// RCU Tasks Rude: regions without markers, which end where the thread blocks.
///
/// A task's region lasts from one voluntary context switch to the next; preemption ends none. The
/// task does nothing for it: a grace period looks at each task from outside, in /proc, and accepts
///
///   * that the task is blocked in a system call now (/proc/self/task/TID/syscall), or
///   * that its count of voluntary switches (…/status) has grown between two looks, and it has then
///     run for a millisecond (…/schedstat), with the same count of page faults (…/stat), or
///   * that it called tasks_rude_quiescent() since, which a task that never blocks has to do: it
///     holds grace periods up for ever, and the stall handler says so.
///
/// What a region may do. The kernel counts as voluntary whatever puts the thread to sleep. So a
/// region makes no system call that can block, takes no lock that can, and touches only memory that
/// is resident: a page fault may sleep. What a sleep in a fault looks like is told apart by the
/// fault that is counted within the millisecond behind it, which rests on how the kernel counts;
/// so keep what a region reads in memory that was written before it was published (as a fresh heap
/// object is), and where memory may be swapped out, mlockall(MCL_CURRENT | MCL_FUTURE).
/// The kernel also puts threads to sleep on its own account: job control (SIGSTOP, Ctrl-Z), a
/// debugger, the freezer, a memory cgroup above its limit. A region in which that happens counts as
/// ended. A program that has to survive it chooses rude_evidence::blocked_in_system_call, which
/// none of them meets; grace periods then wait until they see each task asleep, which takes longer
/// if it rarely is.
///
/// Threads that are no task are not waited for. A task's exit ends its region and registration.
/// Where /proc cannot be read only tasks_rude_quiescent() ends regions. ThreadSanitizer does not
/// know what orders a blocked thread against us, and reports what such a grace period frees.
///
/// Spec: Linux kernel documentation, "A Tour Through RCU's Requirements", Tasks Rude RCU, where a
///       context switch is forced on every CPU; proc_pid_status(5), voluntary_ctxt_switches.
namespace tandem::rcu {

/// What a grace period takes for the end of a region, beside tasks_rude_quiescent().
enum class rude_evidence {
  voluntary_switch,        ///< a voluntary context switch, or being blocked in a system call
  blocked_in_system_call,  ///< only the latter
};

/// Ends the calling task's region and begins the next, for tasks that never block.
///
/// About a nanosecond. No effect in a thread that is no task. Ordering: as tasks_quiescent().
TANDEM_RCU_READER_PATH inline void tasks_rude_quiescent() noexcept {
  detail::TaskEntry& self = detail::here(&detail::tasks_rude_entry);
  if (self.state.load(std::memory_order_relaxed) == 0) return;
  self.state.store(detail::tasks_rude_flavour.sequence.load(std::memory_order_acquire),
                   detail::kReaderOrder);
  light_fence();
}

/// A domain whose grace periods wait for a voluntary context switch of each task.
///
/// While a grace period waits, it looks at the tasks that hold it up every 50 µs, then at doubling
/// intervals up to 10 ms; about 20 µs of CPU time per task and look.
class tasks_rude_domain : public tasks_domain_base {
 public:
  /// Makes the thread that constructs it a task until it is destroyed, on the same thread. Nests.
  class task {
   public:
    task() noexcept;
    ~task();
    task(const task&) = delete;
    task& operator=(const task&) = delete;
  };

  /// For templates over the three domains: a region's markers, of which this flavour has none.
  struct section {
    explicit section(tasks_rude_domain&) noexcept {}
    ~section() {}
  };

  explicit tasks_rude_domain(rude_evidence evidence = rude_evidence::voluntary_switch) noexcept;
  /// Runs what call() was given; ends the calling task's region.
  ~tasks_rude_domain();

  /// Returns once every task has been quiescent. Ends the calling task's region.
  void synchronize() noexcept;

  /// Has `run(&head)` called once every task has been quiescent after the call. May block, for
  /// which it ends the calling task's region: not for use inside one.
  void call(callback_head& head, void (*run)(callback_head*) noexcept) noexcept;
  /// Likewise for a function object, which is moved to the heap. Errors: std::bad_alloc.
  template <class F>
  void call(F function) {
    callback_head& head = make_callback(std::move(function));
    call(head, head.run);
  }

  /// Returns once the callbacks handed in before have returned; may run some of them itself,
  /// outside regions. Ends the calling task's region.
  void barrier() noexcept;
};

}  // namespace tandem::rcu
