// SPDX-License-Identifier: Apache-2.0
#include "apps/broker/lane.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>
#include <vector>

namespace tandem::broker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// Holds tasks up until it is opened.
class Gate {
 public:
  void open() { promise_.set_value(); }
  std::function<void()> task() {
    return [opened = opened_] { opened.wait(); };
  }

 private:
  std::promise<void> promise_;
  std::shared_future<void> opened_ = promise_.get_future().share();
};

/// A task that says that it ran.
struct Mark {
  std::promise<void> promise;
  std::future<void> ran = promise.get_future();
  std::function<void()> task() {
    return [this] { promise.set_value(); };
  }
  bool within(milliseconds patience) { return ran.wait_for(patience) == std::future_status::ready; }
};

TEST(Lane, ATaskBehindOneThatBlocksRuns) {
  // Handed over in one go, while one thread idles: it has not had the time to become busy.
  for (int round = 0; round < 200; ++round) {
    Lane lane{{}};
    Mark first;
    lane.run(1, first.task());
    ASSERT_TRUE(first.within(seconds(10)));
    std::this_thread::yield();
    Gate gate;
    Mark second;
    lane.run(1, gate.task());
    lane.run(2, second.task());
    const bool ran = second.within(seconds(2));
    gate.open();
    ASSERT_TRUE(lane.stop(seconds(10)));
    ASSERT_TRUE(ran) << "in round " << round;
  }
}

TEST(Lane, AnAccountOccupiesNoMoreThanItsShare) {
  Lane lane{{.threads_max = 8, .threads_per_account = 2}};
  Gate gate;
  std::atomic<int> started{0};
  for (int i = 0; i < 20; ++i) {
    lane.run(7, [&, wait = gate.task()] {
      started.fetch_add(1);
      wait();
    });
  }
  while (started.load() < 2) std::this_thread::yield();
  // Others run meanwhile, all of them, and nobody takes a thread from what is left of the eight.
  for (std::uint32_t other = 100; other < 200; ++other) {
    Mark mark;
    lane.run(other, mark.task());
    ASSERT_TRUE(mark.within(seconds(10)));
  }
  EXPECT_EQ(started.load(), 2);
  gate.open();
  ASSERT_TRUE(lane.stop(seconds(10)));
  EXPECT_EQ(started.load(), 20) << "those that had to wait ran as well";
}

TEST(Lane, NoMoreThreadsThanAllowedAndNoTaskIsLost) {
  Lane lane{{.threads_max = 3, .threads_per_account = 2}};
  std::atomic<int> running{0}, most{0}, done{0};
  for (std::uint32_t i = 0; i < 3000; ++i) {
    lane.run(i % 5, [&] {
      const int now = running.fetch_add(1) + 1;
      int seen = most.load();
      while (seen < now && !most.compare_exchange_weak(seen, now)) {
      }
      std::this_thread::yield();
      running.fetch_sub(1);
      done.fetch_add(1);
    });
  }
  ASSERT_TRUE(lane.stop(seconds(30)));
  EXPECT_EQ(done.load(), 3000);
  EXPECT_LE(most.load(), 3);
}

TEST(Lane, TasksOfOneAccountWithOneThreadRunInOrder) {
  Lane lane{{.threads_max = 8, .threads_per_account = 1}};
  std::vector<int> order;
  for (int i = 0; i < 100; ++i) lane.run(1, [&order, i] { order.push_back(i); });
  ASSERT_TRUE(lane.stop(seconds(10)));
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST(Lane, StopSaysWhenATaskStillRuns) {
  Gate gate;
  Lane lane{{}};
  lane.run(1, gate.task());
  EXPECT_FALSE(lane.stop(milliseconds(20)));
  gate.open();
  EXPECT_TRUE(lane.stop(seconds(10)));
}

}  // namespace
}  // namespace tandem::broker
