// SPDX-License-Identifier: Apache-2.0
// Trace probes that are patched live under each Tasks flavour. Under AddressSanitizer an old table
// that is freed too early is a use after free; the contexts show it without.
#include "tandem/rcu/probe_table.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "tandem/rcu/detail/reader.hpp"
#include "tandem/rcu/detail/tasks_test_bench.hpp"

namespace tandem::rcu::detail {
namespace {

constexpr std::size_t kEvents = 8;

template <class Domain>
class ProbeTable : public testing::Test {
 protected:
  void SetUp() override {
    if (kInstrumented && std::is_same_v<Domain, tasks_rude_domain>) {
      GTEST_SKIP() << "ThreadSanitizer does not know what orders a blocked thread against us";
    }
  }
};

using AllDomains = testing::Types<tasks_domain, tasks_rude_domain, tasks_trace_domain>;
struct Names {
  template <class Domain>
  static std::string GetName(int) {
    if (std::is_same_v<Domain, tasks_domain>) return "Tasks";
    return std::is_same_v<Domain, tasks_rude_domain> ? "Rude" : "Trace";
  }
};
TYPED_TEST_SUITE(ProbeTable, AllDomains, Names);

void count(void* context, std::uint64_t a, std::uint64_t) {
  static_cast<std::atomic<std::uint64_t>*>(context)->fetch_add(a, std::memory_order_relaxed);
}

TYPED_TEST(ProbeTable, CallsWhatIsAttachedToTheEventInOrder) {
  TypeParam domain;
  probe_table<TypeParam> table(domain, kEvents);
  std::vector<int> calls;
  const auto push = [](void* context, std::uint64_t a, std::uint64_t b) {
    static_cast<std::vector<int>*>(context)->push_back(static_cast<int>(a * 10 + b));
  };
  std::atomic<std::uint64_t> sum{0};
  table.fire(0, 1, 1);
  ASSERT_TRUE(table.attach(3, {count, &sum}));
  ASSERT_TRUE(table.attach(0, {push, &calls}));
  ASSERT_TRUE(table.attach(7, {count, &sum}));
  for (std::size_t event = 0; event < kEvents; ++event) table.fire(event, event + 1, 2);
  EXPECT_EQ(calls, std::vector<int>{12});
  EXPECT_EQ(sum, 4u + 8u);
  EXPECT_EQ(table.size(), 3u);
  ASSERT_TRUE(table.detach(3, {count, &sum}));
  table.fire(3, 100, 0);
  EXPECT_EQ(sum, 12u);
}

TYPED_TEST(ProbeTable, RefusesWhatMakesNoSense) {
  TypeParam domain;
  probe_table<TypeParam> table(domain, kEvents);
  std::atomic<std::uint64_t> sum{0};
  EXPECT_EQ(table.attach(kEvents, {count, &sum}).error().value(), EINVAL);
  EXPECT_EQ(table.attach(0, {nullptr, &sum}).error().value(), EINVAL);
  EXPECT_EQ(table.detach(0, {count, &sum}).error().value(), ENOENT);
  EXPECT_EQ(table.detach(kEvents, {count, &sum}).error().value(), EINVAL);
  ASSERT_TRUE(table.attach(0, {count, &sum}));
  EXPECT_EQ(table.attach(0, {count, &sum}).error().value(), EEXIST);
}

/// What a handler uses. Its memory stays readable when it is given up.
struct Context {
  std::atomic<bool> alive{true};
  std::atomic<bool> inside{false};
  std::atomic<bool> leave{false};
  std::atomic<bool> found_dead{false};
};

void linger(void* pointer, std::uint64_t, std::uint64_t) {
  auto& context = *static_cast<Context*>(pointer);
  context.inside = true;
  spin_until(context.leave);
  if (!context.alive) context.found_dead = true;
}

/// For planted faults: what a handler that is running uses is given up under it.
TYPED_TEST(ProbeTable, AHandlerThatRunsKeepsWhatWasDetachedUnderIt) {
  TypeParam domain;
  probe_table<TypeParam> table(domain, kEvents);
  Context context;
  ASSERT_TRUE(table.attach(1, {linger, &context}));
  std::thread thread([&] {
    const typename Flavoured<TypeParam>::Task task;
    table.fire(1, 0, 0);
    Flavoured<TypeParam>::between_regions();
  });
  wait_until([&] { return context.inside.load(); });
  ASSERT_TRUE(table.detach(1, {linger, &context}));
  domain.call([&] { context.alive = false; });
  std::this_thread::sleep_for(30ms);  // far more than a grace period that waits for nobody takes
  EXPECT_TRUE(context.alive);
  context.leave = true;
  thread.join();
  domain.barrier();
  EXPECT_FALSE(context.found_dead);
  EXPECT_FALSE(context.alive);
}

void check_alive(void* pointer, std::uint64_t, std::uint64_t) {
  auto& context = *static_cast<Context*>(pointer);
  for (int i = 0; i < 4; ++i) {
    if (!context.alive.load(std::memory_order_relaxed)) context.found_dead = true;
    cpu_pause();
  }
}

TYPED_TEST(ProbeTable, IsPatchedThousandsOfTimesWhileThreadsRunThroughIt) {
  constexpr int kPatches = std::is_same_v<TypeParam, tasks_rude_domain> ? 4'000 : 20'000;
  TypeParam domain;
  probe_table<TypeParam> table(domain, kEvents);
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> fired{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      const typename Flavoured<TypeParam>::Task task;
      for (std::uint64_t i = 0; !stop.load(std::memory_order_relaxed); ++i) {
        table.fire(i % kEvents, i, 0);
        Flavoured<TypeParam>::between_regions();
        // What the rude flavour is about: it sees this without our help.
        if (i % 65'536 == 0) std::this_thread::sleep_for(1us);
        if (i % 1024 == 0) fired.fetch_add(1024, std::memory_order_relaxed);
      }
    });
  }
  wait_until([&] { return fired > 0; });
  std::vector<std::unique_ptr<Context>> contexts;
  for (int i = 0; i < kPatches; ++i) {
    const auto event = static_cast<std::size_t>(i) % kEvents;
    contexts.push_back(std::make_unique<Context>());
    Context* const context = contexts.back().get();
    ASSERT_TRUE(table.attach(event, {check_alive, context}));
    if (i % 512 == 0) std::this_thread::yield();
    ASSERT_TRUE(table.detach(event, {check_alive, context}));
    domain.call([context] { context->alive.store(false, std::memory_order_relaxed); });
  }
  domain.barrier();
  stop = true;
  for (std::thread& thread : threads) thread.join();
  for (const auto& context : contexts) ASSERT_FALSE(context->found_dead);
  EXPECT_EQ(table.size(), 0u);
  const tasks_stats stats = domain.stats();
  EXPECT_EQ(stats.callbacks_invoked, 3u * static_cast<unsigned>(kPatches));
  EXPECT_GT(stats.grace_periods, 0u);
}

TYPED_TEST(ProbeTable, MakesNoMoreGarbageThanTheDomainsCallbacksMay) {
  TypeParam domain;
  probe_table<TypeParam> table(domain, kEvents);
  std::atomic<std::uint64_t> sum{0};
  std::uint64_t most = 0;
  for (int i = 0; i < 100'000; ++i) {
    ASSERT_TRUE(table.attach(0, {count, &sum}));
    ASSERT_TRUE(table.detach(0, {count, &sum}));
    const tasks_stats stats = domain.stats();
    most = std::max(most, stats.callbacks_queued - stats.callbacks_invoked);
  }
  domain.barrier();
  EXPECT_LT(most, 100'000u);
}

}  // namespace
}  // namespace tandem::rcu::detail
