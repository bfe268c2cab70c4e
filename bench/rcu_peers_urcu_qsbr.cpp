// SPDX-License-Identifier: Apache-2.0
// liburcu, flavor qsbr: a quiescent state ends each section.
#define _LGPL_SOURCE
#define TANDEM_BENCH_QSBR
#include <urcu-qsbr.h>

#include "bench/rcu_peers_urcu.hpp"

namespace tandem::bench {

RcuImplementation urcu_qsbr() { return urcu_flavor("liburcu qsbr, inlined"); }

}  // namespace tandem::bench
