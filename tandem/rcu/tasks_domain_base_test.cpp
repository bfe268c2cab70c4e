// SPDX-License-Identifier: Apache-2.0
// What holds of all three Tasks flavours.
#include "tandem/rcu/tasks_domain_base.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <ctime>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "tandem/rcu/detail/reader.hpp"
#include "tandem/rcu/detail/tasks_test_bench.hpp"

namespace tandem::rcu::detail {
namespace {

template <class Domain>
class TasksDomains : public testing::Test {};

using AllDomains = testing::Types<tasks_domain, tasks_rude_domain, tasks_trace_domain>;
struct Names {
  template <class Domain>
  static std::string GetName(int) {
    if (std::is_same_v<Domain, tasks_domain>) return "Tasks";
    return std::is_same_v<Domain, tasks_rude_domain> ? "Rude" : "Trace";
  }
};
TYPED_TEST_SUITE(TasksDomains, AllDomains, Names);

TYPED_TEST(TasksDomains, SynchronizeReturnsWhereNoThreadIsATask) {
  TypeParam domain;
  domain.synchronize();
  EXPECT_EQ(domain.stats().grace_periods, 1u);
}

TYPED_TEST(TasksDomains, SynchronizeWaitsForARegionThatBeganBefore) {
  TypeParam domain;
  TaskInRegion<TypeParam> occupant(domain);
  Updater<TypeParam> updater(domain);
  EXPECT_TRUE(updater.still_waits());
  occupant.leave();
  updater.join();
}

TYPED_TEST(TasksDomains, SynchronizeEndsWhileRegionsFollowEachOther) {
  TypeParam domain;
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> regions{0};
  std::thread reader([&] {
    const typename Flavoured<TypeParam>::Task task;
    while (!stop) {
      { const typename TypeParam::section section(domain); }
      Flavoured<TypeParam>::between_regions();
      ++regions;
    }
  });
  wait_until([&] { return regions > 0; });
  for (int i = 0; i < 50; ++i) domain.synchronize();
  stop = true;
  reader.join();
  EXPECT_EQ(domain.stats().grace_periods, 50u);
}

TYPED_TEST(TasksDomains, ACallbackRunsOnceTheRegionBeforeItHasEnded) {
  TypeParam domain;
  std::atomic<int> ran{0};
  TaskInRegion<TypeParam> occupant(domain);
  domain.call([&] { ++ran; });
  if (!kInstrumented) std::this_thread::sleep_for(30ms);
  EXPECT_EQ(ran, 0);
  occupant.leave();
  domain.barrier();
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(domain.stats().callbacks_queued, 1u);
  EXPECT_EQ(domain.stats().callbacks_invoked, 1u);
}

TYPED_TEST(TasksDomains, AThreadThatExitsInsideItsRegionEndsIt) {
  TypeParam domain;
  std::atomic<bool> exit{false};
  std::atomic<bool> inside{false};
  std::thread thread([&] {
    // Neither is ever destroyed: the thread's exit has to do.
    using Task = typename Flavoured<TypeParam>::Task;
    using Section = typename TypeParam::section;
    alignas(Task) std::byte task[sizeof(Task)];
    alignas(Section) std::byte section[sizeof(Section)];
    new (task) Task;
    new (section) Section(domain);
    inside = true;
    spin_until(exit);
  });
  wait_until([&] { return inside.load(); });
  Updater<TypeParam> updater(domain);
  EXPECT_TRUE(updater.still_waits());
  exit = true;
  updater.join();
  thread.join();
}

TYPED_TEST(TasksDomains, TheDestructorRunsWhatIsLeft) {
  std::atomic<int> ran{0};
  {
    TypeParam domain;
    domain.call([&] {
      ++ran;
      domain.call([&] { ++ran; });
    });
  }
  EXPECT_EQ(ran, 2);
}

TYPED_TEST(TasksDomains, ATaskMayWaitForItself) {
  TypeParam domain;
  const typename Flavoured<TypeParam>::Task task;
  domain.synchronize();
  std::atomic<int> ran{0};
  domain.call([&] { ++ran; });
  Flavoured<TypeParam>::between_regions();
  domain.barrier();
  EXPECT_EQ(ran, 1);
}

TYPED_TEST(TasksDomains, TasksMayAllWaitAtOnce) {
  TypeParam domain;
  TypeParam other;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const typename Flavoured<TypeParam>::Task task;
      for (int i = 0; i < 20; ++i) {
        (t % 2 == 0 ? domain : other).synchronize();
        (t % 2 == 0 ? other : domain).call([] {});
      }
      domain.barrier();
    });
  }
  for (std::thread& thread : threads) thread.join();
}

struct Reports {
  std::mutex mutex;
  std::vector<tasks_stall> list;
  std::size_t count() {
    const std::scoped_lock lock(mutex);
    return list.size();
  }
  static void add(const tasks_stall& stall, void* reports) noexcept {
    auto& self = *static_cast<Reports*>(reports);
    const std::scoped_lock lock(self.mutex);
    self.list.push_back(stall);
  }
};

TYPED_TEST(TasksDomains, AStallIsReportedAtGrowingIntervalsAndTheGracePeriodGoesOn) {
  TypeParam domain;
  Reports reports;
  domain.set_stall_handler(Reports::add, &reports, 2ms);
  TaskInRegion<TypeParam> occupant(domain);
  Updater<TypeParam> updater(domain);
  wait_until([&] { return reports.count() >= 4; });
  EXPECT_FALSE(updater.done());
  occupant.leave();
  updater.join();
  EXPECT_GE(domain.stats().stalls, 4u);
  EXPECT_GE(reports.list[0].age, 2ms);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(reports.list[i].tid, occupant.tid());
    EXPECT_EQ(reports.list[i].report, i + 1);
    if (i > 0) {
      EXPECT_GE(reports.list[i].age, 2 * reports.list[i - 1].age);
    }
  }
}

TYPED_TEST(TasksDomains, AForkedChildUsesTheDomainAtOnce) {
  TypeParam domain;
  TaskInRegion<TypeParam> occupant(domain);  // the child has no such thread
  std::atomic<int> ran{0};
  domain.call([&] { ++ran; });
  const typename Flavoured<TypeParam>::Task task;
  const int code = in_child([&] {
    domain.synchronize();
    if (domain.stats().callbacks_queued != 0) return 1;
    domain.call([&] { ran += 10; });
    Flavoured<TypeParam>::between_regions();
    domain.barrier();
    if (ran != 10) return 2;
    if (kInstrumented) return 0;  // starts no threads in such a child
    TaskInRegion<TypeParam> another(domain);
    Updater<TypeParam> updater(domain);
    const auto until = std::chrono::steady_clock::now() + 30ms;
    while (std::chrono::steady_clock::now() < until) Flavoured<TypeParam>::between_regions();
    if (updater.done()) return 3;
    another.end();
    while (!updater.done()) Flavoured<TypeParam>::between_regions();
    return 0;
  });
  EXPECT_EQ(code, 0);
  occupant.end();
  Flavoured<TypeParam>::between_regions();
  domain.barrier();
  EXPECT_EQ(ran, 1);
}

TYPED_TEST(TasksDomains, ARegionThatIsOpenAtForkIsOpenInTheChild) {
  if (kInstrumented) GTEST_SKIP() << "ThreadSanitizer starts no threads in such a child";
  TypeParam domain;
  const typename Flavoured<TypeParam>::Task task;
  auto section = std::make_optional<typename TypeParam::section>(domain);
  const int code = in_child([&] {
    std::atomic<bool> done{false};
    std::thread updater([&] {
      domain.synchronize();
      done = true;
    });
    const auto until = std::chrono::steady_clock::now() + 30ms;
    while (std::chrono::steady_clock::now() < until) cpu_pause();  // blocks nowhere
    if (done) return 1;
    section.reset();
    Flavoured<TypeParam>::between_regions();
    updater.join();
    return 0;
  });
  EXPECT_EQ(code, 0);
}

TYPED_TEST(TasksDomains, AnIdleDomainUsesNoProcessorTime) {
  TypeParam domain;
  domain.call([] {});
  domain.barrier();
  const auto used = [] {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  };
  // On a busy machine its thread may go to sleep late; who polls never has such a while.
  std::chrono::nanoseconds busy{0};
  for (int i = 0; i < 20; ++i) {
    const auto before = used();
    std::this_thread::sleep_for(200ms);
    busy = used() - before;
    if (busy < 2ms) break;
  }
  EXPECT_LT(busy, 2ms);
}

}  // namespace
}  // namespace tandem::rcu::detail
