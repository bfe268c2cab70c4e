// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/detail/process.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include <array>
#include <csignal>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/background_thread.hpp"
#include "tandem/base/check.hpp"
#include "tandem/base/planted_fault.hpp"

namespace tandem::rcu::detail {
namespace {

constinit std::atomic<std::uint64_t> last_generation{0};         // survives fork
constinit std::atomic<bool> hooks_set{false};                    // survives fork
constinit std::atomic<bool> fence_refused{false};                // survives fork
pthread_key_t exit_key;                                          // written before hooks_set
constinit std::array<std::atomic<void (*)()>, 3> child_hooks{};  // survive fork

void exit_hook(void*) {
  on_thread_exit();
  free_sections();
}

/// All signals but those that a fault of the thread's own causes.
sigset_t signals_from_elsewhere() noexcept {
  sigset_t signals;
  ::sigfillset(&signals);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) ::sigdelset(&signals, fault);
  return signals;
}

/// The fork() that this thread is in. Until the child's thread is registered no signal handler may
/// run there: registering allocates, and fork() holds the locks of the allocator. So signals are
/// blocked from our first step to our last, in the parent, too.
struct Fork {
  unsigned depth = 0;  // of our hooks, which may be set twice
  std::uint64_t parent = 0;
  sigset_t unblocked{};
};
constinit thread_local Fork fork_under_way;

void before_fork() {
  if (fork_under_way.depth++ != 0) return;
  fork_under_way.parent = last_generation.load(std::memory_order_relaxed);
  sigset_t signals = signals_from_elsewhere();
  if (planted_fault("rcu-fork-with-signals")) ::sigemptyset(&signals);
  ::pthread_sigmask(SIG_BLOCK, &signals, &fork_under_way.unblocked);
}

/// With depth 0 the hooks have been set since before_fork() was due.
void after_fork() {
  if (fork_under_way.depth == 0 || --fork_under_way.depth != 0) return;
  ::pthread_sigmask(SIG_SETMASK, &fork_under_way.unblocked, nullptr);
}

void after_fork_in_child() {
  const std::uint64_t parent = fork_under_way.depth != 0
                                   ? fork_under_way.parent
                                   : last_generation.load(std::memory_order_relaxed);
  if (parent != 0 && fork_under_way.depth <= 1) {
    // Where the kernel did not wipe the page. Another value is our own: a hook of the program's
    // came before this one.
    const std::uint64_t value = process.generation.load(std::memory_order_relaxed);
    if (value == parent || value == kEntering) {
      process.generation.store(kWiped, std::memory_order_relaxed);
    }
    on_fork_child(parent);
    for (const auto& hook : child_hooks) {
      if (auto* const run = hook.load(std::memory_order_acquire)) run();
    }
  }
  after_fork();
}

/// Where we are part of a module, it stays when a program closes it: threads that used it still
/// have exit_hook() before them, workers run our code, and readers restartable sequences.
void stay_loaded() noexcept {
  Dl_info program{};
  Dl_info here{};
  if (::dladdr(&exit_key, &here) == 0 || here.dli_fname == nullptr) return;
  (void)::dladdr(reinterpret_cast<const void*>(::getauxval(AT_ENTRY)), &program);
  if (here.dli_fbase == program.dli_fbase) return;
  (void)::dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

/// A fork amid these lines makes the child repeat them: all hooks may run twice.
void set_hooks() noexcept {
  if (hooks_set.load(std::memory_order_acquire)) return;
  stay_loaded();
  TANDEM_CHECK(::pthread_key_create(&exit_key, exit_hook) == 0);
  TANDEM_CHECK(::pthread_atfork(before_fork, after_fork, after_fork_in_child) == 0);
  hooks_set.store(true, std::memory_order_release);
}

// Before threads exist, so that no fork catches them half done. The program's own hooks are mostly
// set later, and run outside ours.
[[maybe_unused]] const bool set_early = (set_hooks(), register_process_fence());

}  // namespace

constinit Process process;
constinit std::atomic<bool> light_readers{false};
constinit thread_local bool thread_ends = false;

std::uint64_t enter_generation() noexcept {
  const SignalsBlocked blocked;  // a handler would wait for the thread that it interrupts
  std::atomic<std::uint64_t>& word = process.generation;
  for (;;) {
    std::uint64_t value = kWiped;
    if (word.compare_exchange_strong(value, kEntering, std::memory_order_acquire)) break;
    if (value != kEntering) return value;
    ::sched_yield();
  }
  set_hooks();
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
  const sigset_t signals = signals_from_elsewhere();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

void at_fork_child(void (*hook)()) noexcept {
  set_hooks();
  for (auto& place : child_hooks) {
    void (*there)() = nullptr;
    if (place.compare_exchange_strong(there, hook, std::memory_order_acq_rel) || there == hook) {
      return;
    }
  }
  constexpr bool kThereIsRoom = false;
  TANDEM_CHECK(kThereIsRoom);
}

void watch_thread_exit() noexcept { TANDEM_CHECK(::pthread_setspecific(exit_key, &exit_key) == 0); }

}  // namespace tandem::rcu::detail
