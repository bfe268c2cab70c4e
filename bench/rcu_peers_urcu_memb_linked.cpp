// SPDX-License-Identifier: Apache-2.0
// liburcu, flavor memb, not inlined: what a program gets that defines nothing.
#define RCU_MEMBARRIER
#include <urcu.h>

#include "bench/rcu_peers_urcu.hpp"

namespace tandem::bench {

RcuImplementation urcu_memb_linked() { return urcu_flavor("liburcu memb, linked"); }

}  // namespace tandem::bench
