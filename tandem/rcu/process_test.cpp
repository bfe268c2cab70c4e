// SPDX-License-Identifier: Apache-2.0
// What becomes of a thread's readers when it forks, ends, or is refused membarrier().
#include "tandem/rcu/detail/process.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <thread>

#include "tandem/base/test_sandbox.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/quiescent.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/srcu.hpp"
#include "tandem/rcu/stats.hpp"
#include "tandem/rcu/tasks_trace.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::in_child;

/// What a hook of the program's does in the child, before the library's own.
void (*early_hook)() = nullptr;

__attribute__((constructor(101))) void set_early_hook() {
  ::pthread_atfork(nullptr, nullptr, [] {
    if (early_hook != nullptr) early_hook();
  });
}

// A signal handler may read in the child, whose first instruction it may follow: nothing is left to
// be registered or allocated there.
TEST(RcuFork, AChildsThreadIsRegisteredFromTheBeginning) {
  rcu_domain domain;
  for (rcu_domain* each : {&rcu_default_domain(), &domain}) {
    const std::scoped_lock section(*each);
  }
  const auto child = [&] {
    for (rcu_domain* each : {&rcu_default_domain(), &domain}) {
      if (stats(*each).readers != 1) return 1;
    }
    return 0;
  };
  EXPECT_EQ(in_child(child), 0);
  EXPECT_EQ(in_child([&] { return in_child(child); }), 0);
}

TEST(RcuFork, AChildDoesWithoutDomainsThatAreGone) {
  {
    rcu_domain domain;
    const std::scoped_lock section(domain);
  }
  EXPECT_EQ(in_child([] {
              rcu_synchronize();
              return 0;
            }),
            0);
}

bool is_registered() {
  const std::uint64_t generation = detail::process.generation.load();
  return detail::default_reader.generation == generation &&
         detail::tasks_trace_entry.generation == generation;
}

sigset_t blocked_signals() {
  sigset_t signals;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &signals);
  return signals;
}

bool same_signals(const sigset_t& one, const sigset_t& other) {
  for (int signal = 1; signal < NSIG; ++signal) {
    if (::sigismember(&one, signal) != ::sigismember(&other, signal)) return false;
  }
  return true;
}

std::array<rcu_domain, 2>* handlers_domains = nullptr;
srcu_domain* handlers_srcu = nullptr;
volatile std::sig_atomic_t handled = 0;
volatile std::sig_atomic_t handled_unregistered = 0;

void read_everywhere(int) {
  handled = handled + 1;
  if (!is_registered()) handled_unregistered = handled_unregistered + 1;
  {
    const std::scoped_lock sections(rcu_default_domain(), (*handlers_domains)[0],
                                    (*handlers_domains)[1]);
  }
  { const srcu_section section(*handlers_srcu); }
  tasks_trace_lock();
  tasks_trace_unlock();
}

TEST(RcuFork, ASignalAmidForkIsHandledOnceTheChildsThreadIsRegistered) {
  std::array<rcu_domain, 2> domains;
  srcu_domain srcu;
  handlers_domains = &domains;
  handlers_srcu = &srcu;
  ASSERT_NE(std::signal(SIGUSR1, read_everywhere), SIG_ERR);
  read_everywhere(SIGUSR1);
  handled = 0;
  handled_unregistered = 0;
  const sigset_t before = blocked_signals();
  const srcu_section open(srcu);
  early_hook = [] { ::raise(SIGUSR1); };
  EXPECT_EQ(in_child([&] {
              early_hook = nullptr;
              if (handled != 1) return 1;
              if (handled_unregistered != 0) return 2;
              return same_signals(before, blocked_signals()) ? 0 : 3;
            }),
            0);
  early_hook = nullptr;
  EXPECT_TRUE(same_signals(before, blocked_signals()));
  EXPECT_EQ(handled, 0);
  ::raise(SIGUSR1);
  EXPECT_EQ(handled, 1);
  std::signal(SIGUSR1, SIG_DFL);
}

TEST(RcuFork, AForkThatFailsLeavesSignalsAsTheyWere) {
  { const std::scoped_lock section(rcu_default_domain()); }
  EXPECT_EQ(in_child([] {
              const sigset_t before = blocked_signals();
              if (!refuse_system_call(SYS_clone, EAGAIN)) return 77;
              if (::fork() != -1 || errno != EAGAIN) return 1;
              return same_signals(before, blocked_signals()) ? 0 : 2;
            }),
            0);
}

bool hooks_object_deleted = false;

TEST(RcuFork, WhatTheProgramsOwnHookRetiresInTheChildIsNotLost) {
  { const std::scoped_lock section(rcu_default_domain()); }
  early_hook = [] { rcu_retire(&hooks_object_deleted, [](bool* deleted) { *deleted = true; }); };
  EXPECT_EQ(in_child([] {
              early_hook = nullptr;
              rcu_barrier();
              return hooks_object_deleted ? 0 : 1;
            }),
            0);
  early_hook = nullptr;
}

// The thread that makes a domain the child's own is the one that a handler interrupts.
TEST(SrcuFork, AHandlerMayInterruptTheFirstUseOfADomainInAChild) {
  if (detail::kInstrumented) GTEST_SKIP() << "ThreadSanitizer: no threads in the child";
  std::array<srcu_domain, 2000> domains;
  handlers_srcu = domains.data();
  ASSERT_NE(std::signal(SIGUSR1, [](int) { const srcu_section section(*handlers_srcu); }), SIG_ERR);
  EXPECT_EQ(in_child([&] {
              const pthread_t reader = ::pthread_self();
              std::atomic<bool> stop{false};
              std::thread sender([&] {
                while (!stop) ::pthread_kill(reader, SIGUSR1);
              });
              for (srcu_domain& domain : domains) {
                handlers_srcu = &domain;
                const srcu_section section(domain);
              }
              stop = true;
              sender.join();
              return 0;
            }),
            0);
  std::signal(SIGUSR1, SIG_DFL);
}

struct LateUse {
  rcu_domain domain;
  pthread_key_t key{};
  int rounds = 0;
};

/// Runs after our own hook in every round of key destructors that glibc makes.
void use_late(void* argument) {
  auto& use = *static_cast<LateUse*>(argument);
  static int object;
  for (rcu_domain* each : {&rcu_default_domain(), &use.domain}) {
    {
      const std::scoped_lock section(*each);
      const std::scoped_lock nested(*each);
      rcu_retire(
          &object, [](int*) {}, *each);
    }
    rcu_retire(
        &object, [](int*) {}, *each);
    {
      fenced_reader fenced(*each);
      const std::scoped_lock section(fenced);
    }
    {
      quiescent_reader reader(*each);
      reader.quiescent();
      rcu_synchronize(*each);
      reader.quiescent();
    }
    rcu_synchronize(*each);
  }
  if (++use.rounds < PTHREAD_DESTRUCTOR_ITERATIONS) ::pthread_setspecific(use.key, &use);
}

TEST(RcuThreads, MayUseItInTheLastOfTheirDestructors) {
  if (detail::kInstrumented) GTEST_SKIP() << "ThreadSanitizer forgets a thread before that";
  LateUse use;
  ASSERT_EQ(::pthread_key_create(&use.key, use_late), 0);
  { const std::scoped_lock section(rcu_default_domain()); }
  const std::uint64_t before = stats(rcu_default_domain()).readers;
  for (int i = 0; i < 3; ++i) {
    use.rounds = 0;
    std::thread([&] {
      { const std::scoped_lock section(rcu_default_domain()); }
      ::pthread_setspecific(use.key, &use);
    }).join();
    ASSERT_EQ(use.rounds, PTHREAD_DESTRUCTOR_ITERATIONS);
    ASSERT_EQ(stats(rcu_default_domain()).readers, before);
    ASSERT_EQ(stats(use.domain).readers, 0u);
  }
  ::pthread_key_delete(use.key);
}

pthread_key_t trace_key;
thread_local int trace_rounds = 0;

TEST(TasksTrace, ThreadsMayUseItInTheLastOfTheirDestructors) {
  if (detail::kInstrumented) GTEST_SKIP() << "ThreadSanitizer forgets a thread before that";
  tasks_trace_domain domain;
  ASSERT_EQ(::pthread_key_create(&trace_key,
                                 [](void* argument) {
                                   tasks_trace_lock();
                                   tasks_trace_lock();
                                   tasks_trace_unlock();
                                   tasks_trace_unlock();
                                   static_cast<tasks_trace_domain*>(argument)->synchronize();
                                   if (++trace_rounds < PTHREAD_DESTRUCTOR_ITERATIONS) {
                                     ::pthread_setspecific(trace_key, argument);
                                   }
                                 }),
            0);
  for (int i = 0; i < 3; ++i) {
    const void* entry = nullptr;
    std::thread([&] {
      tasks_trace_lock();
      tasks_trace_unlock();
      entry = &detail::tasks_trace_entry;
      ::pthread_setspecific(trace_key, &domain);
    }).join();
    detail::Registry& registry = *detail::tasks_trace_flavour.registry.load();
    const MutexLock lock(registry.mutex);
    for (const detail::TaskEntry* at = registry.entries; at; at = at->next) ASSERT_NE(at, entry);
  }
  ::pthread_key_delete(trace_key);
}

TEST(RcuSandbox, ReadersMakeTheirOwnFencesOnceTheKernelRefusesMembarrier) {
  if (detail::kInstrumented) GTEST_SKIP() << "ThreadSanitizer: they always do";
  if (!stats(rcu_default_domain()).light_readers) GTEST_SKIP() << "no membarrier";
  EXPECT_EQ(in_child([] {
              rcu_domain domain;
              detail::Occupant other(domain);  // a plain reader to be fenced
              { const std::scoped_lock section(domain); }
              if (!stats(domain).light_readers) return 1;
              if (!refuse_system_call(SYS_membarrier, EPERM)) return 77;
              const detail::Waiter waiter([&] { rcu_synchronize(domain); });
              detail::wait_until([&] { return !stats(domain).light_readers; });
              if (waiter.returned()) return 2;
              { const std::scoped_lock section(domain); }
              other.leave();
              waiter.wait();
              return 0;
            }),
            0);
}

}  // namespace
}  // namespace tandem::rcu
