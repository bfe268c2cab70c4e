// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/detail/callback_worker.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/rcu/detail/process.hpp"

namespace tandem::rcu::detail {
namespace {

/// A "grace period" that a test can hold up and count.
struct Gate {
  std::atomic<bool> open{true};
  std::atomic<int> passed{0};
  static void wait(void* gate) noexcept {
    auto& self = *static_cast<Gate*>(gate);
    self.open.wait(false);
    ++self.passed;
  }
  void set(bool to) {
    open = to;
    open.notify_all();
  }
};

struct Call : callback_head {
  explicit Call(std::function<void()> what) : body(std::move(what)) {
    run = [](callback_head* head) noexcept {
      const std::unique_ptr<Call> self(static_cast<Call*>(head));
      self->body();
    };
  }
  std::function<void()> body;
};

void push(CallbackWorker& worker, std::function<void()> body) {
  worker.push(*new Call(std::move(body)), /*may_sleep=*/true);
}

TEST(CallbackWorker, RunsACallbackAfterAGracePeriodAndNotBefore) {
  Gate gate;
  gate.set(false);
  std::atomic<int> ran{0};
  CallbackWorker worker("test-worker", Gate::wait, &gate);
  push(worker, [&] { ran = gate.passed.load(); });
  EXPECT_EQ(ran, 0);
  gate.set(true);
  worker.barrier();
  EXPECT_EQ(ran, 1);
}

TEST(CallbackWorker, RunsACallbackOnce) {
  struct Counted : callback_head {
    std::atomic<int> ran{0};
  } counted;
  counted.run = [](callback_head* head) noexcept { ++static_cast<Counted*>(head)->ran; };
  Gate gate;
  CallbackWorker worker("test-worker", Gate::wait, &gate);
  worker.push(counted, /*may_sleep=*/true);
  worker.barrier();
  worker.barrier();
  EXPECT_EQ(counted.ran, 1);
}

TEST(CallbackWorker, RunsCallbacksInOrder) {
  Gate gate;
  std::vector<int> order;
  {
    CallbackWorker worker("test-worker", Gate::wait, &gate);
    for (int i = 0; i < 1000; ++i) push(worker, [&order, i] { order.push_back(i); });
    worker.barrier();
    ASSERT_EQ(order.size(), 1000u);
    const auto counts = worker.counts();
    EXPECT_EQ(counts.queued, 1000u);
    EXPECT_EQ(counts.invoked, 1000u);
    EXPECT_GE(counts.batches, 1u);
  }
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST(CallbackWorker, BarrierWaitsForCallbacksOfAllThreads) {
  Gate gate;
  CallbackWorker worker("test-worker", Gate::wait, &gate);
  std::atomic<int> ran{0};
  constexpr int kThreads = 4;
  constexpr int kEach = 2000;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kEach; ++i) {
        std::atomic<bool> mine{false};
        const bool check = i % 100 == 0;
        push(worker, [&ran, check, &mine] {
          if (check) mine = true;
          ++ran;
        });
        if (check) {
          worker.barrier();
          EXPECT_TRUE(mine);
        }
      }
      worker.barrier();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ran, kThreads * kEach);
}

TEST(CallbackWorker, ACallbackMayPushAndMayCallBarrier) {
  Gate gate;
  std::atomic<int> ran{0};
  {
    CallbackWorker worker("test-worker", Gate::wait, &gate);
    push(worker, [&] {
      push(worker, [&] { ++ran; });
      worker.barrier();
      EXPECT_EQ(ran, 1);
      push(worker, [&] { ++ran; });
    });
  }  // the destructor runs what is left
  EXPECT_EQ(ran, 2);
}

TEST(CallbackWorker, AFloodIsSlowedDownToTheWorkersPace) {
  Gate gate;
  CallbackWorker worker("test-worker", Gate::wait, &gate);
  std::uint64_t most = 0;
  for (int i = 0; i < 400'000; ++i) {
    push(worker, [] {});
    const auto counts = worker.counts();
    most = std::max(most, counts.queued - counts.invoked);
  }
  worker.barrier();
  EXPECT_LT(most, 100'000u);
}

TEST(CallbackWorker, AForkedChildHasAnEmptyQueueThatWorksAtOnce) {
  Gate gate;
  gate.set(false);
  CallbackWorker worker("test-worker", Gate::wait, &gate);
  std::atomic<int> ran{0};
  push(worker, [&] { ++ran; });
  const pid_t child = ::fork();
  if (child == 0) {
    gate.open = true;
    if (worker.counts().queued != 0) ::_exit(1);
    push(worker, [&] { ran += 10; });
    worker.barrier();
    ::_exit(ran == 10 ? 0 : 2);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  gate.set(true);
  worker.barrier();
  EXPECT_EQ(ran, 1);
}

}  // namespace
}  // namespace tandem::rcu::detail
