// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tandem/base/result.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu {

/// As rcu_synchronize(), but in a hurry: does not wait its turn behind other grace periods, and a
/// reader that holds it up after 0.1 ms runs at a real-time priority until its section ends, if the
/// process may have one (CAP_SYS_NICE or RLIMIT_RTPRIO).
///
/// Thread safety: as rcu_synchronize().
/// Spec:          Linux kernel documentation, "RCU API": synchronize_rcu_expedited.
inline void rcu_synchronize_expedited(rcu_domain& dom = rcu_default_domain()) noexcept {
  detail::DomainAccess::expedite(dom);
}

/// The SCHED_FIFO priority that readers in the way are lent from now on, 0 for none; 1 unless set.
/// Threads that drive expedited grace periods run one above; those that run already keep theirs.
///
/// Errors:        EINVAL when the scheduler has no such priorities.
/// Thread safety: any thread.
Result<void> set_expedited_priority(int priority);

}  // namespace tandem::rcu
