// SPDX-License-Identifier: Apache-2.0
/// Memory that runs out. Replaces operator new: for one source file of a test program. Not
/// installed.
#pragma once

#include <climits>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace tandem {

/// What this thread may still allocate before there is no memory.
inline constinit thread_local int allocations_left = INT_MAX;
/// There is memory again after that.
inline constinit thread_local bool lacks_once = false;

// AddressSanitizer brings operators of its own, which one of ours would not fit.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kRunsOut = false;
#else
inline constexpr bool kRunsOut = true;
#endif

}  // namespace tandem

#if !defined(__SANITIZE_ADDRESS__)
// NOLINTNEXTLINE(misc-new-delete-overloads,misc-definitions-in-headers): see above
void* operator new(std::size_t size) {
  int& left = tandem::allocations_left;
  void* const memory = left > 0 ? std::malloc(size) : nullptr;
  if (memory == nullptr) {
    if (tandem::lacks_once) left = INT_MAX;
    throw std::bad_alloc();
  }
  if (left != INT_MAX) --left;
  return memory;
}
#endif
