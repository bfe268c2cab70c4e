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
///
/// Resets light_readers where the kernel refuses it. Then heavy_fence_process() only waits, which
/// no architecture promises to be enough; see Core::fence().
void grace_period_fence() noexcept;

/// Has on_thread_exit() and free_sections() called when this thread ends, after C++ thread-local
/// destructors.
///
/// Other keys' destructors may run after it, and glibc goes round all of them four times only: what
/// this thread attaches after a call, it detaches with its next outermost unlock.
void watch_thread_exit() noexcept;

/// Whether on_thread_exit(), or its counterpart for tasks, has run on this thread.
extern constinit thread_local bool thread_ends __attribute__((tls_model("initial-exec")));

/// For a thread that attaches although it ends: no handler shall use what it is about to detach.
/// Signals that a fault of the thread's own causes stay.
void block_signals_for_good() noexcept;

/// In reader.cpp: detaches this thread's readers.
void on_thread_exit() noexcept;
/// In srcu_reader.cpp: gives back what this thread needed for many sections at once.
void free_sections() noexcept;
/// In reader.cpp: in a child of the process of generation `parent`, attaches this thread's readers.
void on_fork_child(std::uint64_t parent) noexcept;

/// Has `hook` called in every child that fork() makes, on its thread, after on_fork_child() and
/// before any signal handler can run there. The second call with one hook does nothing.
void at_fork_child(void (*hook)()) noexcept;

}  // namespace tandem::rcu::detail
