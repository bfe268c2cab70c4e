// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

namespace tandem {

/// Registers this process for heavy_fence_process(). Idempotent.
///
/// Returns: whether the kernel has the expedited command and TANDEM_DISABLE allows it. When false,
///          both sides of a pair must use full_fence().
/// Fork:    a child inherits the registration.
bool register_process_fence() noexcept;

/// A full fence on every running thread of this process.
///
/// A sandbox that the process has entered since may refuse it. Then this waits for a millisecond
/// instead: no architecture promises it, but no processor keeps a store to itself for so long, and
/// a thread that is switched out has let go of its own.
/// Returns: false then.
/// Cost: 0.3 µs alone, about 10 µs while another CPU runs such a thread.
bool heavy_fence_process() noexcept;

/// The cheap half of a pair whose other half is a heavy fence: stops the compiler only.
inline void light_fence() noexcept { std::atomic_signal_fence(std::memory_order_seq_cst); }

/// A full fence of this thread's memory accesses.
///
/// Not std::atomic_thread_fence, which g++ rejects under ThreadSanitizer: an exchange on a word of
/// the caller's stack orders the same on every target we build for.
inline void full_fence() noexcept {
#if defined(__SANITIZE_THREAD__) || defined(__aarch64__)
#if defined(__aarch64__)
  asm volatile("dmb ish" ::: "memory");
#else
  std::atomic<int> word{0};
  word.exchange(1, std::memory_order_seq_cst);
#endif
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

/// full_fence() right after a read-modify-write of this thread's, of whatever order: on x86 that
/// was one already.
inline void fence_after_rmw() noexcept {
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
  light_fence();
#else
  full_fence();
#endif
}

}  // namespace tandem
