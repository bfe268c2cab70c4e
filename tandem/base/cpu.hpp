// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace tandem {

/// Bytes that two cores must not share when each writes its own.
inline constexpr std::size_t kCacheLine = 64;

/// How many CPUs the calling thread may run on (sched_getaffinity), at least 1.
int usable_cpus() noexcept;

/// Tells the core that this is a spin loop.
inline void cpu_pause() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

/// Starts to fetch the cache line at `address` for writing: takes it from the core that has it.
/// Never faults.
inline void prefetch_for_write(const void* address) noexcept {
#if defined(__x86_64__)
  // The built-in asks for a shared line unless the compiler is told of a newer CPU; where the CPU
  // does not know the instruction, it does nothing.
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(address)));
#else
  __builtin_prefetch(address, 1);
#endif
}

}  // namespace tandem
