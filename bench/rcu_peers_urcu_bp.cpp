// SPDX-License-Identifier: Apache-2.0
// liburcu, flavor bp: threads register by themselves.
#define _LGPL_SOURCE
#include <urcu-bp.h>

#include "bench/rcu_peers_urcu.hpp"

namespace tandem::bench {

RcuImplementation urcu_bp() { return urcu_flavor("liburcu bp, inlined"); }

}  // namespace tandem::bench
