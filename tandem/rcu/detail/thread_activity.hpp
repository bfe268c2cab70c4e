// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

/// What the kernel says of a thread of this process, without the thread's help.
///
/// Spec: proc(5): proc_pid_syscall(5), proc_pid_status(5), proc_pid_stat(5);
///       Linux kernel documentation, "Scheduler Statistics", /proc/<pid>/schedstat.
namespace tandem::rcu::detail {

enum class Activity {
  kRunning,       ///< on a CPU or waiting for one
  kInSystemCall,  ///< blocked in a system call
  kElsewhere,     ///< asleep, but not by a system call: a page fault, a stop signal
  kUnknown,       ///< no such thread, or /proc tells nothing
};

/// What thread `tid` does now. Costs about 5 µs. Errors: kUnknown.
Activity thread_activity(std::int32_t tid) noexcept;

/// How often `tid` has gone to sleep: voluntary_ctxt_switches. Errors: nullopt, as above.
std::optional<std::uint64_t> voluntary_switches(std::int32_t tid) noexcept;

/// Page faults of `tid` that have ended, minor and major. Errors: nullopt, as above.
std::optional<std::uint64_t> page_faults(std::int32_t tid) noexcept;

/// How long `tid` has had a CPU, up to the last tick or switch. Errors: nullopt, as above, and
/// where the kernel keeps no such account (CONFIG_SCHED_INFO).
std::optional<std::uint64_t> cpu_time_ns(std::int32_t tid) noexcept;

}  // namespace tandem::rcu::detail
