// SPDX-License-Identifier: Apache-2.0
/// What no peer has: tandem::rcu on busy CPUs, in two ways to be compared, and what has a fixed
/// target.
#pragma once

namespace tandem::bench {

/// Microseconds that the worst one in a hundred of `rounds` expedited grace periods takes while a
/// thread spins on each CPU and a reader shares one of them. The caller is a real-time thread where
/// that is allowed. priority: the SCHED_FIFO priority that
/// they may use, 0 for none.
double expedited_p99_us(int priority, int rounds);

/// Nanoseconds between two turns of the loop of a thread that hands one callback in at each turn,
/// the worst one in a hundred; each callback works for a microsecond. offloaded: to a thread on
/// another CPU, else the thread's own slack.
double callback_gap_p99_ns(bool offloaded, int turns);

/// Microseconds of CPU time that the threads which run callbacks use in a second without any.
double idle_worker_us();

/// Nanoseconds to ask whether a grace period has ended.
double poll_ns(long rounds);

/// Nanoseconds for a section that may sleep, of nothing.
double srcu_section_ns(long rounds);

}  // namespace tandem::bench
