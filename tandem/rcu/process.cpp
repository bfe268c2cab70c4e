// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/detail/process.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <csignal>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/check.hpp"
#include "tandem/base/planted_fault.hpp"

namespace tandem::rcu::detail {
namespace {

constinit std::atomic<std::uint64_t> last_generation{0};  // survives fork
constinit std::atomic<bool> hooks_set{false};             // survives fork
constinit std::atomic<bool> fence_refused{false};         // survives fork
pthread_key_t exit_key;                                   // written before hooks_set

// Asked for before threads exist, so that no fork can catch its one-time guard half done.
[[maybe_unused]] const bool asked_early = register_process_fence();

void exit_hook(void*) { on_thread_exit(); }

/// Also right where the kernel did not wipe the page.
void fork_hook() {
  const std::uint64_t parent = last_generation.load(std::memory_order_relaxed);
  process.generation.store(kWiped, std::memory_order_relaxed);
  on_fork_child(parent);
}

}  // namespace

constinit Process process;
constinit std::atomic<bool> light_readers{false};
constinit thread_local bool thread_ends = false;

std::uint64_t enter_generation() noexcept {
  std::atomic<std::uint64_t>& word = process.generation;
  for (;;) {
    std::uint64_t value = kWiped;
    if (word.compare_exchange_strong(value, kEntering, std::memory_order_acquire)) break;
    if (value != kEntering) return value;
    ::sched_yield();
  }
  if (!hooks_set.load(std::memory_order_acquire)) {
    // A fork amid these lines makes the child repeat them: both hooks may run twice.
    TANDEM_CHECK(::pthread_key_create(&exit_key, exit_hook) == 0);
    TANDEM_CHECK(::pthread_atfork(nullptr, nullptr, fork_hook) == 0);
    hooks_set.store(true, std::memory_order_release);
  }
  // Where the kernel cannot, fork() itself is noticed all the same.
  ::madvise(&process, sizeof process, MADV_WIPEONFORK);
  light_readers.store(register_process_fence() && !fence_refused.load(std::memory_order_relaxed),
                      std::memory_order_relaxed);
  const std::uint64_t generation = last_generation.fetch_add(1, std::memory_order_relaxed) + 1;
  word.store(generation, std::memory_order_release);
  return generation;
}

void grace_period_fence() noexcept {
  if (register_process_fence() && !planted_fault("rcu-skip-membarrier")) {
    if (heavy_fence_process()) return;
    fence_refused.store(true, std::memory_order_relaxed);
    light_readers.store(false, std::memory_order_relaxed);
  } else {
    full_fence();
  }
}

void block_signals_for_good() noexcept {
  sigset_t signals;
  ::sigfillset(&signals);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) ::sigdelset(&signals, fault);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

void watch_thread_exit() noexcept { TANDEM_CHECK(::pthread_setspecific(exit_key, &exit_key) == 0); }

}  // namespace tandem::rcu::detail
