// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/tasks_trace.hpp"

#include <gtest/gtest.h>
#include <pthread.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <thread>

#include "tandem/rcu/detail/tasks_test_bench.hpp"
#include "tandem/rcu/detail/test_scheduling.hpp"

namespace tandem::rcu::detail {
namespace {

using Waiting = Updater<tasks_trace_domain>;

TEST(RcuTasksTrace, SectionsNestAndMaySleep) {
  tasks_trace_domain domain;
  std::atomic<int> inside{0};
  std::atomic<bool> inner_ends{false};
  std::atomic<bool> outer_ends{false};
  std::thread thread([&] {
    const std::scoped_lock outer(domain);
    {
      const std::scoped_lock inner(domain);
      EXPECT_TRUE(tasks_trace_held());
      inside = 1;
      inner_ends.wait(false);
    }
    EXPECT_TRUE(tasks_trace_held());
    inside = 2;
    outer_ends.wait(false);
  });
  wait_until([&] { return inside == 1; });
  Waiting updater(domain);
  EXPECT_TRUE(updater.still_waits());
  inner_ends = true;
  inner_ends.notify_all();
  wait_until([&] { return inside == 2; });
  EXPECT_TRUE(updater.still_waits());
  outer_ends = true;
  outer_ends.notify_all();
  updater.join();
  thread.join();
  EXPECT_FALSE(tasks_trace_held());
}

TEST(RcuTasksTrace, SynchronizeGivesItsCpuAwayOnlyToSleep) {
  tasks_trace_domain domain;
  TaskInRegion<tasks_trace_domain> task(domain);
  const long losses = cpu_losses_before_sleep([&] { domain.synchronize(); }, [&] { task.leave(); });
  if (losses < 0) GTEST_SKIP() << "/proc does not tell what the thread does";
  EXPECT_LE(losses, kFewLosses);
}

TEST(RcuTasksTrace, ASectionThatBeginsLaterIsNotWaitedFor) {
  tasks_trace_domain domain;
  TaskInRegion<tasks_trace_domain> early(domain);
  Waiting updater(domain);
  EXPECT_TRUE(updater.still_waits());
  TaskInRegion<tasks_trace_domain> late(domain);
  early.leave();
  updater.join();
}

TEST(RcuTasksTrace, ASectionKeepsACallbackOfItsOwnThreadWaiting) {
  tasks_trace_domain domain;
  std::atomic<bool> ran{false};
  {
    const std::scoped_lock section(domain);
    domain.call([&] { ran = true; });
    std::this_thread::sleep_for(20ms);
    EXPECT_FALSE(ran);
  }
  domain.barrier();
  EXPECT_TRUE(ran);
}

TEST(RcuTasksTraceDeathTest, WaitingInASectionAndAnUnlockTooManyAreReported) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  tasks_trace_domain domain;
  EXPECT_DEATH(domain.unlock(), "state");
  EXPECT_DEATH(
      {
        domain.lock();
        domain.synchronize();
      },
      "tasks_trace_held");
}

/// Objects whose memory stays readable, so that a too early release shows.
struct Cell {
  std::atomic<std::uint32_t> alive{1};
};
std::array<Cell, 64> cells;
std::atomic<Cell*> current{&cells[0]};
std::atomic<std::uint64_t> handled{0};
std::atomic<std::uint64_t> torn{0};

void read_current() {
  tasks_trace_lock();
  const Cell* const cell = current.load(std::memory_order_acquire);
  for (int i = 0; i < 20; ++i) {
    if (cell->alive.load(std::memory_order_relaxed) == 0) torn.fetch_add(1);
    cpu_pause();
  }
  tasks_trace_unlock();
}

void on_signal(int) {
  read_current();
  handled.fetch_add(1);
}

class SignalHandler {
 public:
  SignalHandler() {
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    ::sigaction(SIGUSR1, &action, &before_);
  }
  ~SignalHandler() { ::sigaction(SIGUSR1, &before_, nullptr); }

 private:
  struct sigaction before_ {};
};

TEST(RcuTasksTrace, AThreadsFirstSectionMayBeInASignalHandler) {
  const SignalHandler handler;
  handled = 0;
  std::atomic<bool> stop{false};
  std::thread thread([&] { spin_until(stop); });
  ::pthread_kill(thread.native_handle(), SIGUSR1);
  wait_until([&] { return handled > 0; });
  stop = true;
  thread.join();
  EXPECT_EQ(torn, 0u);
}

TEST(RcuTasksTrace, SectionsOfHandlersThatInterruptLockAndUnlockProtect) {
  const SignalHandler handler;
  tasks_trace_domain domain;
  handled = 0;
  std::atomic<bool> stop{false};
  std::atomic<bool> ready{false};
  std::thread reader([&] {
    ready = true;
    while (!stop) read_current();
  });
  wait_until([&] { return ready.load(); });
  std::thread sender([&] {
    while (!stop) {
      ::pthread_kill(reader.native_handle(), SIGUSR1);
      const std::uint64_t before = handled;
      while (handled == before && !stop) cpu_pause();
    }
  });
  std::size_t next = 1;
  const auto until = std::chrono::steady_clock::now() + 500ms;
  while (std::chrono::steady_clock::now() < until || domain.stats().grace_periods <= 10) {
    cells[next].alive.store(1, std::memory_order_relaxed);
    Cell* const old = current.exchange(&cells[next], std::memory_order_acq_rel);
    domain.synchronize();
    old->alive.store(0, std::memory_order_relaxed);
    next = (next + 1) % cells.size();
  }
  stop = true;
  sender.join();
  reader.join();
  EXPECT_EQ(torn, 0u);
  EXPECT_GT(handled, 0u);
}

}  // namespace
}  // namespace tandem::rcu::detail
