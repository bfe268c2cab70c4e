// SPDX-License-Identifier: Apache-2.0
// liburcu, flavor mb: readers that make their own fences.
#define RCU_MB
#define _LGPL_SOURCE
#include <urcu.h>

#include "bench/rcu_peers_urcu.hpp"

namespace tandem::bench {

RcuImplementation urcu_mb() { return urcu_flavor("liburcu mb, inlined"); }

}  // namespace tandem::bench
