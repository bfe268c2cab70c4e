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

}  // namespace tandem
