// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace tandem::rcu {

/// Names a grace period of one domain that may still have to begin: what get_state() and
/// start_poll() return and poll_state() asks about. A value; never wraps.
///
/// Spec: Linux kernel documentation, "RCU API", polled grace periods (get_state_synchronize_rcu).
struct gp_state {
  std::uint64_t value = 0;
  friend bool operator==(gp_state, gp_state) = default;
};

}  // namespace tandem::rcu
