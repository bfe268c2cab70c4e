// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/offload.hpp"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "tandem/base/cpu.hpp"
#include "tandem/rcu/call.hpp"
#include "tandem/rcu/detail/test_objects.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::destroyed;
using detail::wait_until;
using detail::WithBase;

cpu_set_t all_cpus() {
  cpu_set_t cpus;
  ::sched_getaffinity(0, sizeof cpus, &cpus);
  return cpus;
}

struct Where : callback_head {
  std::thread::id thread;
  std::atomic<int> runs{0};
  static void run(callback_head* head) noexcept {
    auto* const self = static_cast<Where*>(head);
    self->thread = std::this_thread::get_id();
    ++self->runs;
  }
};

/// Has callbacks run, each once. Returns: how many of them ran on this thread.
std::size_t run_on_this_thread(rcu_domain& domain, bool offloaded, std::size_t count) {
  std::vector<Where> all(count);
  for (Where& one : all) {
    call(one, Where::run, sizeof one, domain);
    if (!offloaded) run_callbacks(domain);
  }
  while (all.back().runs == 0) {  // not by rcu_barrier(), which runs callbacks itself
    rcu_synchronize(domain);
    if (!offloaded) run_callbacks(domain);
  }
  rcu_barrier(domain);
  std::size_t own = 0;
  for (const Where& one : all) {
    EXPECT_EQ(one.runs, 1);
    own += one.thread == std::this_thread::get_id() ? 1 : 0;
  }
  return own;
}

TEST(Offload, CallbacksRunInTheThreadsSlackOrOnTheWorkerAsTold) {
  constexpr std::size_t kCount = 4096;
  rcu_domain domain;
  offload_options options;
  options.cpus = all_cpus();
  for (const bool offloaded : {false, true, false, true}) {
    options.offloaded = offloaded;
    ASSERT_TRUE(set_offload(options, domain));
    // Threads notice within a few hundred calls.
    std::vector<Where> notice(1024);
    for (Where& one : notice) call(one, Where::run, sizeof one, domain);
    rcu_barrier(domain);
    std::size_t own = run_on_this_thread(domain, offloaded, kCount);
    if (offloaded) {
      EXPECT_EQ(own, 0u);
      continue;
    }
    // What a thread that gets no CPU leaves is run for it.
    for (int i = 0; i < 20 && own <= kCount / 2; ++i) {
      own = run_on_this_thread(domain, offloaded, kCount);
    }
    EXPECT_GT(own, kCount / 2);
  }
}

TEST(Offload, WhatAThreadLeavesIsRunForIt) {
  rcu_domain domain;
  offload_options options;
  options.cpus = all_cpus();
  options.offloaded = false;
  ASSERT_TRUE(set_offload(options, domain));
  Where one;
  call(one, Where::run, sizeof one, domain);
  while (one.runs == 0) std::this_thread::sleep_for(1ms);
  EXPECT_NE(one.thread, std::this_thread::get_id());
}

TEST(Offload, TogglingUnderLoadLosesNothing) {
  rcu_domain domain;
  std::atomic<bool> stop{false};
  std::atomic<long> called{0};
  std::vector<std::thread> threads;
  destroyed = 0;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        for (int k = 0; k < 100; ++k) rcu::free(new WithBase, domain);
        called += 100;
        run_callbacks(domain);
      }
    });
  }
  offload_options options;
  options.cpus = all_cpus();
  for (int i = 0; i < 50; ++i) {
    options.offloaded = i % 2 == 0;
    ASSERT_TRUE(set_offload(options, domain));
    rcu_barrier(domain);
  }
  stop = true;
  for (auto& thread : threads) thread.join();
  rcu_barrier(domain);
  EXPECT_EQ(destroyed, called);
}

TEST(Offload, RefusesGroupsThatOverlapInPart) {
  rcu_domain domain;
  offload_options options;
  EXPECT_FALSE(set_offload(options, domain)) << "empty";
  CPU_SET(0, &options.cpus);
  CPU_SET(1, &options.cpus);
  ASSERT_TRUE(set_offload(options, domain));
  ASSERT_TRUE(set_offload(options, domain)) << "the same group again";
  CPU_SET(2, &options.cpus);
  EXPECT_FALSE(set_offload(options, domain));
  for (std::size_t i = 0; i < 6; ++i) {
    offload_options more;
    CPU_SET(10 + i, &more.cpus);
    ASSERT_TRUE(set_offload(more, domain)) << i;
  }
  offload_options more;
  CPU_SET(20, &more.cpus);
  EXPECT_FALSE(set_offload(more, domain)) << "more than seven groups";
}

TEST(Offload, WorkersRunWhereAndHowTheyAreTold) {
  rcu_domain domain;
  offload_options options;
  options.cpus = all_cpus();
  options.worker_cpus.emplace();
  CPU_ZERO(&*options.worker_cpus);
  std::size_t cpu = 0;
  while (!CPU_ISSET(cpu, &options.cpus)) ++cpu;
  CPU_SET(cpu, &*options.worker_cpus);
  options.policy = SCHED_BATCH;
  ASSERT_TRUE(set_offload(options, domain));
  struct Look : callback_head {
    cpu_set_t cpus{};
    int policy = -1;
    std::atomic<bool> done{false};
  } look;
  std::vector<Where> notice(1024);
  for (Where& one : notice) call(one, Where::run, sizeof one, domain);
  call(
      look,
      [](callback_head* head) noexcept {
        auto* const self = static_cast<Look*>(head);
        ::sched_getaffinity(0, sizeof self->cpus, &self->cpus);
        self->policy = ::sched_getscheduler(0);
        self->done = true;
      },
      sizeof look, domain);
  wait_until(look.done);
  EXPECT_TRUE(CPU_EQUAL(&look.cpus, &*options.worker_cpus));
  EXPECT_EQ(look.policy, SCHED_BATCH);
  rcu_barrier(domain);
}

/// The test that has to notice the planted fault "rcu-early-callback".
TEST(RcuCallbacks, AThreadThatRunsItsOwnRunsNoneThatAReaderHoldsUp) {
  rcu_domain domain;
  std::atomic<bool> inside{false};
  std::atomic<bool> leave{false};
  std::thread reader([&] {
    const std::scoped_lock section(domain);
    inside = true;
    wait_until([&] { return leave.load(); });
  });
  wait_until([&] { return inside.load(); });
  std::atomic<bool> deleted{false};
  rcu_retire(
      &deleted, [](std::atomic<bool>* flag) { *flag = true; }, domain);
  for (int i = 0; i < 100; ++i) (void)run_callbacks(domain);
  EXPECT_FALSE(deleted);
  leave = true;
  reader.join();
  rcu_barrier(domain);
  EXPECT_TRUE(deleted);
}

TEST(Offload, GroupsThatAreSetUpAtOnceAreAllThere) {
  const auto group = [](std::initializer_list<unsigned> cpus) {
    offload_options options;
    CPU_ZERO(&options.cpus);
    for (const unsigned cpu : cpus) CPU_SET(cpu, &options.cpus);
    return options;
  };
  for (int round = 0; round < 50; ++round) {
    rcu_domain domain;
    std::atomic<int> ready{0};
    const auto set_up = [&](unsigned cpu) {
      ++ready;
      while (ready != 2) cpu_pause();
      EXPECT_TRUE(set_offload(group({cpu}), domain).has_value());
    };
    std::thread other([&] { set_up(0); });
    set_up(1);
    other.join();
    ASSERT_FALSE(set_offload(group({0, 2}), domain).has_value()) << "the group of CPU 0 is lost";
    ASSERT_FALSE(set_offload(group({1, 3}), domain).has_value()) << "the group of CPU 1 is lost";
  }
}

}  // namespace
}  // namespace tandem::rcu
