// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tandem/rcu/detail/tasks_registry.hpp"

/// The three flavours and their per-thread words; what the inline reader paths touch.
namespace tandem::rcu::detail {

extern constinit Flavour tasks_flavour;
extern constinit Flavour tasks_rude_flavour;
extern constinit Flavour tasks_trace_flavour;

/// The rude flavour's: what was seen of the thread from outside. All under Registry::mutex.
struct RudeEntry : TaskEntry {
  std::uint64_t passed = 0;          // the thread was quiescent since this sequence
  std::uint64_t passed_blocked = 0;  // likewise, by having been seen blocked
  std::uint64_t base_sequence = 0;   // when the counts below were read; 0: never
  std::uint64_t base_switches = 0;
  std::uint64_t base_faults = 0;
  bool switched = false;          // the thread has switched since; whether in a fault is not known
  std::uint64_t switched_at = 0;  // its CPU time after that, in ns
};

// Initial-exec: one addition to the thread pointer instead of a call, also in shared libraries.
#define TANDEM_RCU_TLS __attribute__((tls_model("initial-exec")))
extern constinit thread_local TaskEntry tasks_entry TANDEM_RCU_TLS;
extern constinit thread_local RudeEntry tasks_rude_entry TANDEM_RCU_TLS;
extern constinit thread_local TaskEntry tasks_trace_entry TANDEM_RCU_TLS;
#undef TANDEM_RCU_TLS

}  // namespace tandem::rcu::detail
