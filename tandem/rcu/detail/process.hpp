// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

#include "tandem/rcu/detail/reader.hpp"

namespace tandem::rcu::detail {

/// Values of the generation word that are no generation.
inline constexpr std::uint64_t kWiped = 0;                 // a forked child before its first use
inline constexpr std::uint64_t kEntering = kDetached - 1;  // a thread is at enter_generation()

/// Starts the generation of a new process, once; others wait for it.
std::uint64_t enter_generation() noexcept;

/// The number of this process among its forefathers: differs from every ancestor's.
///
/// Thread safety: any thread; takes no lock that a thread of the parent could have held.
inline std::uint64_t current_generation() noexcept {
  const std::uint64_t value = process.generation.load(std::memory_order_acquire);
  return value == kWiped || value == kEntering ? enter_generation() : value;
}

/// The readers' counterpart: a full fence on every thread of the process. (F)
void grace_period_fence() noexcept;

/// Has on_thread_exit() called when this thread ends, after C++ thread-local destructors.
///
/// Other keys' destructors may run after it, and glibc goes round all of them four times only: what
/// this thread attaches after a call, it detaches with its next outermost unlock.
void watch_thread_exit() noexcept;

/// In reader.cpp: detaches this thread's readers.
void on_thread_exit() noexcept;
/// In reader.cpp: in a forked child, attaches those of this thread's readers that are in a section.
void on_fork_child() noexcept;

}  // namespace tandem::rcu::detail
