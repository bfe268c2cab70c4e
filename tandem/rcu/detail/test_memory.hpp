// SPDX-License-Identifier: Apache-2.0
/// What operator new does in this module's tests: it counts, and it can refuse. Its definition is
/// in no_memory_test.cpp. For tests; not installed.
#pragma once

#include <cstdint>

namespace tandem::rcu::detail {

/// AddressSanitizer brings operators of its own, which half a set of ours would not fit.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kOwnOperators = false;
#else
inline constexpr bool kOwnOperators = true;
#endif

// Initial-exec, as the tests' own are: a signal handler reads them.
#define TANDEM_RCU_TLS __attribute__((tls_model("initial-exec")))
extern constinit thread_local bool no_memory TANDEM_RCU_TLS;
extern constinit thread_local bool no_memory_at_all TANDEM_RCU_TLS;  // where it throws, too
/// Calls of operator new and delete on this thread; 0 without operators of our own.
extern constinit thread_local std::uint64_t memory_calls TANDEM_RCU_TLS;
#undef TANDEM_RCU_TLS

}  // namespace tandem::rcu::detail
