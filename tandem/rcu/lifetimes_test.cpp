// SPDX-License-Identifier: Apache-2.0
// Threads and processes that begin and end at inconvenient moments, and what a process may lack.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <thread>
#include <vector>

#include "tandem/rcu/call.hpp"
#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/grace_period.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/srcu.hpp"
#include "tandem/rcu/stats.hpp"

namespace tandem::rcu {
namespace {

struct Counted : rcu_obj_base<Counted> {
  explicit Counted(std::atomic<long>& count) : deleted(count) {}
  ~Counted() { ++deleted; }
  std::atomic<long>& deleted;
};

std::size_t queues_of(rcu_domain& domain) {
  std::size_t count = 0;
  const detail::Core& core = detail::DomainAccess::core(domain);
  for (const detail::Queue* queue = core.queues; queue != nullptr; queue = queue->next) ++count;
  return count;
}

TEST(Lifetimes, TenThousandThreadsOneAfterAnotherLeaveNothing) {
  rcu_domain domain;
  srcu_domain sleepable;
  std::atomic<long> deleted{0};
  constexpr long kThreads = 10000;
  for (long i = 0; i < kThreads; ++i) {
    std::thread([&] {
      const std::scoped_lock section(domain);
      const srcu_section sleeper(sleepable);
      (new Counted(deleted))->retire({}, domain);
    }).join();
  }
  EXPECT_EQ(stats(domain).readers, 0u);
  EXPECT_EQ(sleepable.reader_count(), 0u);
  EXPECT_LE(queues_of(domain), 2u);  // that of last resort, and one
  rcu_barrier(domain);
  EXPECT_EQ(deleted, kThreads);
}

TEST(Lifetimes, AnExceptionLeavesItsSections) {
  rcu_domain domain;
  srcu_domain sleepable;
  const auto throws = [&] {
    const std::scoped_lock section(domain);
    const srcu_section sleeper(sleepable);
    throw std::runtime_error("amid sections");
  };
  EXPECT_THROW(throws(), std::runtime_error);
  EXPECT_FALSE(domain.in_section());
  rcu_synchronize(domain);
  sleepable.synchronize();
}

TEST(Lifetimes, AProgramMayExecInASectionWithCallbacksUnderWay) {
  if (detail::kInstrumented) GTEST_SKIP() << "ThreadSanitizer: no threads in the child";
  EXPECT_EQ(detail::in_child([] {
              rcu_domain domain;
              std::atomic<long> deleted{0};
              for (int i = 0; i < 100; ++i) (new Counted(deleted))->retire({}, domain);
              const std::scoped_lock sections(domain, rcu_default_domain());
              return ::execl("/proc/self/exe", "exec", "--gtest_list_tests",
                             "--gtest_filter=Lifetimes.*", nullptr);
            }),
            0);
}

// ---- Destructors that run at exit -------------------------------------------------------------

/// Constructed before any test ran, so destroyed after everything of theirs.
struct AtExit {
  ~AtExit() {
    if (std::getenv("TANDEM_AT_EXIT") == nullptr) return;
    std::atomic<long> deleted{0};
    {
      const std::scoped_lock section(rcu_default_domain());
      for (int i = 0; i < 1000; ++i) (new Counted(deleted))->retire();
      rcu_retire(new Counted(deleted), [](Counted* object) { delete object; });
    }
    rcu_synchronize();
    rcu_barrier();
    rcu_domain further;
    (new Counted(deleted))->retire({}, further);
    rcu_barrier(further);
    ::_exit(deleted == 1002 ? 0 : 3);
  }
} at_exit;

TEST(Lifetimes, StaticDestructorsMayRetireWhileThreadsRead) {
  if (std::getenv("TANDEM_AT_EXIT") != nullptr) {  // in a process of its own, which ends now
    std::atomic<bool> reads{false};
    std::thread([&reads] {
      for (;;) {
        const std::scoped_lock section(rcu_default_domain());
        rcu_retire(new int);
        reads = true;
      }
    }).detach();
    detail::wait_until(reads);
    std::exit(1);  // at_exit says 0
  }
  EXPECT_EQ(detail::in_child([] {
              ::setenv("TANDEM_AT_EXIT", "1", 1);
              return ::execl("/proc/self/exe", "exit",
                             "--gtest_filter=Lifetimes.StaticDestructors*", nullptr);
            }),
            0);
}

// ---- A process that may have little -----------------------------------------------------------

std::size_t mapped_bytes() {
  std::ifstream file("/proc/self/statm");
  std::size_t pages = 0;
  file >> pages;
  return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMemoryIsLimited = false;  // the sanitizer's own ends the program
#else
constexpr bool kMemoryIsLimited = true;
#endif

// Neither a thread's stack nor a page for pointers can be had, and nobody is told: retire() and
// free() of what has a head have no way to.
TEST(Lifetimes, AtTheLimitOfMemoryWhatIsRetiredIsDeletedAllTheSame) {
  if (!kMemoryIsLimited) GTEST_SKIP() << "a sanitizer: memory does not run out";
  EXPECT_EQ(detail::in_child([] {
              rcu_domain domain;
              std::atomic<long> deleted{0};
              constexpr long kObjects = 100'000;
              std::vector<std::unique_ptr<Counted>> objects;
              for (long i = 0; i < kObjects; ++i) {
                objects.push_back(std::make_unique<Counted>(deleted));
              }
              rlimit limit{};
              ::getrlimit(RLIMIT_AS, &limit);
              limit.rlim_cur = mapped_bytes();
              if (::setrlimit(RLIMIT_AS, &limit) != 0) return 1;
              std::deque<std::unique_ptr<char[]>> hoard;  // what the allocator still has
              try {
                for (;;) hoard.push_back(std::make_unique<char[]>(512));
              } catch (const std::bad_alloc&) {
              }
              for (auto& object : objects) object.release()->retire({}, domain);
              rcu_barrier(domain);
              return deleted == kObjects ? 0 : 2;
            }),
            0);
}

TEST(Lifetimes, WithoutThreadsEverythingStillEnds) {
  if (detail::kInstrumented) GTEST_SKIP() << "ThreadSanitizer: no threads in the child";
  EXPECT_EQ(detail::in_child([] {
              const detail::NoThreads none;
              rcu_domain domain;
              srcu_domain sleepable;
              std::atomic<long> deleted{0};
              if (prepare_polling(domain) || sleepable.start_worker()) return 1;
              for (int i = 0; i < 10'000; ++i) {
                (new Counted(deleted))->retire({}, domain);
                rcu_retire(new Counted(deleted), {}, domain);
                sleepable.retire(new Counted(deleted));
              }
              const gp_state plain = start_poll_expedited(domain);
              const gp_state sleeping = sleepable.start_poll();
              if (!poll_state(plain, domain) || !sleepable.poll_state(sleeping)) return 2;
              rcu_synchronize(domain);
              sleepable.synchronize_expedited();
              rcu_barrier(domain);
              sleepable.barrier();
              return deleted == 30'000 ? 0 : 3;
            }),
            0);
}

}  // namespace
}  // namespace tandem::rcu
