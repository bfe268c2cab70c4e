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
#include "tandem/rcu/detail/core.hpp"
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
  // On a busy machine it may go to sleep late; who polls never has such a while.
  long switches = 0;
  for (int i = 0; i < 20; ++i) {
    const long before = voluntary();
    std::this_thread::sleep_for(200ms);
    switches = voluntary() - before;
    if (switches <= 5) break;
  }
  EXPECT_LE(switches, 5) << "an idle worker polls";
}

constexpr std::uint64_t kWordsMax = 65536;
constexpr std::uint64_t kBytesMax = std::uint64_t{16} << 20;

/// Retires objects until the thread is slowed down `times` times, or `at_most` of them.
template <class Object>
void flood(rcu_domain& domain, std::uint64_t times, int at_most) {
  const std::uint64_t until = stats(domain).throttled + times;
  for (int i = 0; i < at_most && stats(domain).throttled < until; ++i) {
    rcu::free(new Object, domain);
  }
}

TEST(Worker, GivesPagesBackBeforeItSleeps) {
  rcu_domain domain;
  {
    const detail::Occupant reader(domain);
    for (std::size_t i = 0; i < 20 * detail::Chunk::kWords; ++i) rcu::free(new Plain, domain);
  }
  rcu_barrier(domain);
  detail::Queue& queue = *detail::DomainAccess::core(domain).queues;
  const auto spares = [&queue] {
    detail::Chunk* const list = queue.spares.exchange(nullptr);
    const std::uint32_t count = list == nullptr ? 0 : list->used;
    detail::Core::give_spares_back(queue, list);
    return count;
  };
  wait_until([&] { return spares() <= 4; });
}

TEST(Worker, AFloodThatNobodyCanWorkOffIsSlowedDownMoreEachTime) {
  rcu_domain domain;
  detail::Occupant reader(domain);
  flood<Plain>(domain, 1, 100'000);
  EXPECT_EQ(stats(domain).throttled, 1u);
  EXPECT_LE(stats(domain).waiting_words, kWordsMax + detail::Chunk::kWords);
  const auto begin = std::chrono::steady_clock::now();
  flood<Plain>(domain, 5, 100'000);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, 2ms + 4ms + 8ms + 16ms + 32ms);
  EXPECT_LE(stats(domain).waiting_words, kWordsMax + 6 * detail::Chunk::kWords);
  reader.leave();
  rcu_barrier(domain);
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
  // Each wait in vain for the worker lets another chunk in; ten of them are a second.
  EXPECT_LE(most, kWordsMax + (1 + 10) * detail::Chunk::kWords);
}

TEST(Worker, BigObjectsCountByTheirBytes) {
  struct Big {
    char bytes[100000];
  };
  rcu_domain domain;
  detail::Occupant reader(domain);
  flood<Big>(domain, 1, 1000);
  EXPECT_EQ(stats(domain).throttled, 1u);
  EXPECT_LE(stats(domain).waiting_bytes, kBytesMax + detail::kChunkObjectBytes + sizeof(Big));
  reader.leave();
  rcu_barrier(domain);
}

TEST(Worker, AFloodInsideASectionIsNotSlowedDown) {
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
