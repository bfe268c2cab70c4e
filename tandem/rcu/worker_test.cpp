// SPDX-License-Identifier: Apache-2.0
// The domain's thread, and how it holds floods back.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <thread>

#include "tandem/rcu/call.hpp"
#include "tandem/rcu/detail/test_objects.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/stats.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::destroyed;
using detail::Plain;
using detail::wait_until;

TEST(Worker, RunsOneCallbackSoonAndThenSleeps) {
  rcu_domain domain;
  struct Timed : callback_head {
    std::atomic<bool> done{false};
  };
  for (int i = 0; i < 3; ++i) {
    Timed one;
    call(
        one, [](callback_head* head) noexcept { static_cast<Timed*>(head)->done = true; },
        sizeof one, domain);
    wait_until(one.done);
    std::this_thread::sleep_for(20ms);
  }
  const auto voluntary = [] {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nvcsw;
  };
  const long before = voluntary();
  std::this_thread::sleep_for(200ms);
  EXPECT_LE(voluntary() - before, 5) << "an idle worker polls";
}

TEST(Worker, AFloodGrowsTheBacklogToABoundOnly) {
  rcu_domain domain;
  destroyed = 0;
  std::uint64_t most = 0;
  for (int i = 0; i < 300000; ++i) {
    rcu::free(new Plain, domain);
    if (i % 1000 == 0) most = std::max(most, stats(domain).waiting_words);
  }
  rcu_barrier(domain);
  EXPECT_EQ(destroyed, 300000);
  EXPECT_LT(most, 65536u + 4096u);
}

TEST(Worker, BigObjectsCountByTheirBytes) {
  rcu_domain domain;
  struct Big {
    char bytes[100000];
  };
  std::uint64_t most = 0;
  for (int i = 0; i < 2000; ++i) {
    rcu::free(new Big, domain);
    most = std::max(most, stats(domain).waiting_bytes);
  }
  rcu_barrier(domain);
  EXPECT_LT(most, std::uint64_t{18} << 20);
}

TEST(Worker, AFloodInsideASectionIsNotHeldBackAndBehindItOnlySlowly) {
  rcu_domain domain;
  destroyed = 0;
  {
    const std::scoped_lock section(domain);
    for (int i = 0; i < 100000; ++i) rcu::free(new Plain, domain);  // must return
  }
  rcu_barrier(domain);
  EXPECT_EQ(destroyed, 100000);
  EXPECT_EQ(stats(domain).throttled, 0u);
}

}  // namespace
}  // namespace tandem::rcu
