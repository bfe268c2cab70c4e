// SPDX-License-Identifier: Apache-2.0
// What becomes of a thread's readers when it ends, or is refused membarrier().
#include "tandem/rcu/detail/process.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstdint>
#include <mutex>
#include <thread>

#include "tandem/base/mutex.hpp"
#include "tandem/base/test_sandbox.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/quiescent.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/stats.hpp"
#include "tandem/rcu/tasks_trace.hpp"

namespace tandem::rcu {
namespace {

using detail::in_child;

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
  constexpr int kNoFilters = 77;
  const int result = in_child([] {
    rcu_domain domain;
    detail::Occupant other(domain);  // a plain reader to be fenced
    { const std::scoped_lock section(domain); }
    if (!stats(domain).light_readers) return 1;
    if (!refuse_system_call(SYS_membarrier, EPERM)) return kNoFilters;
    const detail::Waiter waiter([&] { rcu_synchronize(domain); });
    detail::wait_until([&] { return !stats(domain).light_readers; });
    if (waiter.returned()) return 2;
    { const std::scoped_lock section(domain); }
    other.leave();
    waiter.wait();
    return 0;
  });
  if (result == kNoFilters) GTEST_SKIP() << "no system-call filters";
  EXPECT_EQ(result, 0);
}

}  // namespace
}  // namespace tandem::rcu
