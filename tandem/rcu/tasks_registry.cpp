// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/detail/tasks_registry.hpp"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <memory>

#include "tandem/base/background_thread.hpp"
#include "tandem/base/check.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/rcu/detail/process.hpp"
#include "tandem/rcu/detail/tasks_flavours.hpp"

namespace tandem::rcu::detail {
namespace {

constinit std::atomic<bool> hooks_set{false};  // survives fork
pthread_key_t exit_key;                        // written before hooks_set

/// The calling thread's entry in each flavour.
template <class Function>
void for_each_entry(Function function) noexcept {
  function(tasks_flavour, tasks_entry);
  function(tasks_rude_flavour, tasks_rude_entry);
  function(tasks_trace_flavour, tasks_trace_entry);
}

void on_exit(void*) {
  thread_ends = true;
  for_each_entry([](Flavour& flavour, TaskEntry& entry) {
    entry.registrations = 0;
    detach(flavour, entry);
  });
}

/// The child's only thread stays a task, and in the region it was in.
void on_fork() {
  tasks_rude_entry.base_sequence = 0;  // what was seen is the parent's thread
  for_each_entry([](Flavour& flavour, TaskEntry& entry) {
    if (flavour.registry.load(std::memory_order_relaxed)) prepare(flavour);
    if (entry.generation != kDetached) attach(flavour, entry);
  });
}

void set_hooks() noexcept {
  if (hooks_set.load(std::memory_order_acquire)) return;
  static Mutex mutex;
  const MutexLock lock(mutex);
  if (hooks_set.load(std::memory_order_relaxed)) return;
  TANDEM_CHECK(::pthread_key_create(&exit_key, on_exit) == 0);
  at_fork_child(on_fork);
  hooks_set.store(true, std::memory_order_release);
}

// Before threads exist: no fork catches it half done, and the key is among the first 32, which
// glibc stores in the thread itself, so that a signal handler may set it.
[[maybe_unused]] const bool set_early = (set_hooks(), true);

Registry& registry_of(Flavour& flavour) noexcept {
  const std::uint64_t generation = current_generation();
  Registry* current = flavour.registry.load(std::memory_order_acquire);
  while (!current || current->generation != generation) {
    auto fresh = std::make_unique<Registry>(generation, current);
    if (flavour.registry.compare_exchange_strong(current, fresh.get(), std::memory_order_acq_rel,
                                                 std::memory_order_acquire)) {
      return *fresh.release();
    }
  }
  return *current;
}

void wake_all(Registry& registry) noexcept {
  registry.moved.fetch_add(1, std::memory_order_acq_rel);
  futex_wake(registry.moved, INT_MAX);
}

}  // namespace

void prepare(Flavour& flavour) noexcept {
  set_hooks();
  registry_of(flavour);
}

void attach(Flavour& flavour, TaskEntry& entry) noexcept {
  prepare(flavour);
  if (thread_ends) block_signals_for_good();
  const SignalsBlocked blocked;  // a handler may attach, too
  Registry& registry = registry_of(flavour);
  if (entry.generation == registry.generation) return;  // a handler was faster
  TANDEM_CHECK(::pthread_setspecific(exit_key, &exit_key) == 0);
  const MutexLock lock(registry.mutex);
  // In a forked child the parent's links are forgotten.
  entry.tid = static_cast<std::int32_t>(::syscall(SYS_gettid));
  entry.previous = nullptr;
  entry.next = registry.entries;
  if (entry.next) entry.next->previous = &entry;
  registry.entries = &entry;
  if (thread_ends) entry.wake.store(1, std::memory_order_relaxed);
  entry.generation = registry.generation;
}

void detach(Flavour& flavour, TaskEntry& entry) noexcept {
  if (entry.generation == kDetached) return;
  const SignalsBlocked blocked;
  if (entry.generation == current_generation()) {
    Registry& registry = registry_of(flavour);
    {
      const MutexLock lock(registry.mutex);
      (entry.previous ? entry.previous->next : registry.entries) = entry.next;
      if (entry.next) entry.next->previous = entry.previous;
    }
    wake_all(registry);
  }
  entry.state.store(0, std::memory_order_release);
  entry.wake.store(0, std::memory_order_relaxed);
  entry.generation = kDetached;
}

void wake_waiters(Flavour& flavour, TaskEntry& entry) noexcept {
  // The exit hook may not be called again: what attaches after it leaves with its last section.
  if (thread_ends && entry.registrations == 0) return detach(flavour, entry);
  // Cleared before `moved` changes: who sets it again has read the new value and waits on that.
  entry.wake.store(0, std::memory_order_release);
  wake_all(*flavour.registry.load(std::memory_order_acquire));
}

}  // namespace tandem::rcu::detail
