// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/alarm.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace tandem::pcie::detail {
namespace {

using namespace std::chrono_literals;
using Clock = Alarm::Clock;

TEST(AlarmTest, RingsAtTheEarliestTimeAndThenAtTheNext) {
  const auto start = Clock::now();
  std::atomic<int> rings{0};
  std::atomic<bool> early{false};
  Alarm alarm([&]() -> std::optional<Clock::time_point> {
    if (Clock::now() < start + 5ms) early = true;
    if (++rings == 3) return std::nullopt;
    return Clock::now() + 1ms;
  });
  alarm.set(start + std::chrono::hours(24));
  alarm.set(start + 5ms);
  alarm.set(start + std::chrono::hours(48));
  while (rings < 3) std::this_thread::yield();
  EXPECT_FALSE(early);
  alarm.set(Clock::now() - 1s);
  while (rings < 4) std::this_thread::yield();
}

TEST(AlarmTest, StoppingWaitsForTheCallAndIsFinal) {
  std::atomic<int> rings{0};
  std::atomic<bool> returned{false};
  Alarm alarm([&]() -> std::optional<Clock::time_point> {
    ++rings;
    std::this_thread::yield();
    returned = true;
    return Clock::now();
  });
  alarm.set(Clock::now());
  while (rings == 0) std::this_thread::yield();
  alarm.stop();
  EXPECT_TRUE(returned);
  const int rung = rings;
  alarm.set(Clock::now());
  alarm.stop();
  EXPECT_EQ(rings, rung);
}

TEST(AlarmTest, WithoutATimeThereIsNoThread) {
  Alarm alarm([]() -> std::optional<Clock::time_point> { return std::nullopt; });
  alarm.stop();
}

}  // namespace
}  // namespace tandem::pcie::detail
