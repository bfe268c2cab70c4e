// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sched.h>

#include <optional>

#include "tandem/base/result.hpp"
#include "tandem/rcu/rcu.hpp"

/// Where deleters and callbacks run.
///
/// At first one thread of the domain runs them all. A group of CPUs can be given a thread of its
/// own, with CPUs and a scheduling policy to run at; or the threads on those CPUs can be told to
/// run their own callbacks in their slack, and back, at run time.
///
/// Spec: Linux kernel documentation, "RCU and real-time": callback offloading (rcu_nocbs), with
///       rcu_nocb_cpu_offload() and rcu_nocb_cpu_deoffload().
namespace tandem::rcu {

struct offload_options {
  cpu_set_t cpus{};  ///< of threads that retire; the group. All of it or none of a group before
  bool offloaded = true;  ///< false: these threads run what they retired, a few at each retire or
                          ///< run_callbacks(); what they leave for 10 ms the group's thread runs
  std::optional<cpu_set_t> worker_cpus = std::nullopt;  ///< where the group's thread may run
  int policy = SCHED_OTHER;                             ///< its policy, as sched_setscheduler()'s
  int priority = 0;                                     ///< its priority
};

/// Sets up the group of `options.cpus`, or changes it. Threads notice at one of their next few
/// hundred retires; what is queued then moves with them.
///
/// Errors:        EINVAL for an empty set or one that overlaps another group in part; ENOSPC for
///                more than seven groups; EAGAIN when no thread can be started; EPERM and the like
///                when CPUs or policy were refused: the group then runs where and how it may.
/// Thread safety: any thread.
/// Fork:          the child starts without groups.
Result<void> set_offload(const offload_options& options, rcu_domain& dom = rcu_default_domain());

}  // namespace tandem::rcu
