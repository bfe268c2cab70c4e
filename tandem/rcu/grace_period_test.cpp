// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/grace_period.hpp"

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "tandem/rcu/call.hpp"
#include "tandem/rcu/detail/test_busy_worker.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/expedite.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/srcu.hpp"
#include "tandem/rcu/stats.hpp"
#include "tandem/rcu/tasks.hpp"
#include "tandem/rcu/tasks_rude.hpp"
#include "tandem/rcu/tasks_trace.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::BusyWorker;
using detail::Occupant;
using detail::wait_until;
using detail::Waiter;

TEST(Polling, EndsWithTheSectionsThatWereThere) {
  rcu_domain domain;
  for (const bool threads : {false, true}) {
    if (threads) {
      ASSERT_TRUE(prepare_polling(domain));
    }
    domain.lock();
    gp_state state;
    std::thread([&] { state = start_poll(domain); }).join();
    std::this_thread::sleep_for(5ms);
    EXPECT_FALSE(poll_state(state, domain));
    domain.unlock();
    while (!poll_state(state, domain)) std::this_thread::yield();
    EXPECT_TRUE(poll_state(state, domain)) << "once true it stays true";
  }
}

TEST(Polling, AGracePeriodThatBeganBeforeDoesNotCount) {
  rcu_domain domain;
  rcu_synchronize(domain);
  const gp_state state = get_state(domain);
  // No thread of the domain runs, and nobody drives: only poll_state() itself may.
  domain.lock();
  std::thread([&] { EXPECT_FALSE(poll_state(state, domain)); }).join();
  domain.unlock();
  rcu_synchronize(domain);
  EXPECT_TRUE(poll_state(state, domain));
}

TEST(Polling, CondSynchronizeWaitsOnlyIfItMust) {
  rcu_domain domain;
  const gp_state old = get_state(domain);
  rcu_synchronize(domain);
  domain.lock();
  cond_synchronize(old, domain);  // inside a section: has passed, so it is no deadlock
  cond_synchronize_expedited(old, domain);
  domain.unlock();
  const gp_state next = get_state(domain);
  Occupant reader(domain);
  const Waiter waiter([&] { cond_synchronize(next, domain); });
  EXPECT_FALSE(waiter.returned_within(20ms));
  reader.leave();
  waiter.wait();
}

TEST(Polling, TheDomainsThreadDrivesWhatWasStarted) {
  rcu_domain domain;
  ASSERT_TRUE(prepare_polling(domain));
  const std::uint64_t before = stats(domain).grace_periods;
  const gp_state state = start_poll(domain);
  while (stats(domain).grace_periods == before) std::this_thread::yield();
  while (!poll_state(state, domain)) std::this_thread::yield();
}

TEST(Polling, ADeleterInTheWorkersWayHoldsNothingUp) {
  rcu_domain domain;
  const BusyWorker worker(domain);
  const gp_state state = start_poll(domain);
  EXPECT_TRUE(poll_state(state, domain));
  {
    const detail::Occupant reader(domain);
    const gp_state next = start_poll(domain);
    EXPECT_FALSE(poll_state(next, domain));
  }
}

TEST(Polling, ADeleterMayPollUntilTheEnd) {
  rcu_domain domain;
  ASSERT_TRUE(prepare_polling(domain));
  static rcu_domain* polled;
  polled = &domain;
  for (const bool in_barrier : {false, true}) {
    std::atomic<bool> ended{false};
    rcu_retire(
        &ended,
        [](std::atomic<bool>* flag) {
          const gp_state state = start_poll(*polled);
          wait_until([&] { return poll_state(state, *polled); });
          *flag = true;
        },
        domain);
    if (in_barrier) rcu_barrier(domain);
    wait_until(ended);
  }
}

rcu_domain* signal_domain = nullptr;
std::atomic<int> handled{0};
std::atomic<int> passed{0};
gp_state handler_state;

void reads_and_polls(int) {
  {
    const std::scoped_lock section(*signal_domain);
    if (poll_state(handler_state, *signal_domain)) ++passed;
  }
  handler_state =
      handled % 2 == 0 ? start_poll(*signal_domain) : start_poll_expedited(*signal_domain);
  ++handled;
}

TEST(Polling, AndReadingWorkInSignalHandlers) {
  rcu_domain domain;
  signal_domain = &domain;
  handled = passed = 0;
  handler_state = get_state(domain);
  ASSERT_TRUE(prepare_polling(domain));
  { const std::scoped_lock section(domain); }
  std::optional<detail::Interrupted> interrupted;
  interrupted.emplace(reads_and_polls, 50us, 0);
  // The handler interrupts sections, grace periods and retires of this very thread.
  std::vector<callback_head> heads(256);
  const auto end = std::chrono::steady_clock::now() + 300ms;
  while (std::chrono::steady_clock::now() < end || handled <= 10 || passed == 0) {
    {
      const std::scoped_lock section(domain);
      const std::scoped_lock nested(domain);
      EXPECT_TRUE(domain.in_section());
    }
    EXPECT_FALSE(domain.in_section());
    rcu_synchronize(domain);
    for (callback_head& head : heads) {
      call(
          head, [](callback_head*) noexcept {}, sizeof head, domain);
    }
    rcu_barrier(domain);
  }
  interrupted.reset();
}

TEST(SynchronizeMult, WaitsForEachDomain) {
  rcu_domain one;
  rcu_domain two;
  for (rcu_domain* held : {&one, &two}) {
    held->lock();
    const Waiter waiter([&] { synchronize_mult(one, two, rcu_default_domain()); });
    EXPECT_FALSE(waiter.returned_within(20ms));
    held->unlock();
    waiter.wait();
  }
}

TEST(SynchronizeMult, TakesDomainsOfEveryKind) {
  rcu_domain plain;
  srcu_domain sleepable;
  tasks_domain tasks;
  tasks_rude_domain rude;
  tasks_trace_domain trace;
  const auto waits = [&](auto enter, auto leave) {
    std::atomic<int> stage{0};
    std::thread reader([&] {
      enter();
      stage = 1;
      wait_until([&] { return stage == 2; });
      leave();
    });
    wait_until([&] { return stage == 1; });
    const Waiter waiter([&] { synchronize_mult(tasks, plain, trace, sleepable, rude); });
    const bool waited = !waiter.returned_within(20ms);
    stage = 2;
    reader.join();
    return waited;
  };
  EXPECT_TRUE(waits([&] { plain.lock(); }, [&] { plain.unlock(); }));
  int token = 0;
  EXPECT_TRUE(waits([&] { token = sleepable.lock(); }, [&] { sleepable.unlock(token); }));
  std::optional<tasks_domain::task> task;
  EXPECT_TRUE(waits([&] { task.emplace(); }, [&] { task.reset(); }));
  std::optional<tasks_rude_domain::task> rude_task;
  EXPECT_TRUE(waits([&] { rude_task.emplace(); }, [&] { rude_task.reset(); }));
  EXPECT_TRUE(waits([&] { tasks_trace_lock(); }, [&] { tasks_trace_unlock(); }));
}

/// The test that has to notice the planted fault "rcu-completes-too-much".
TEST(RcuPolling, AGracePeriodServesNobodyWhoAsksAfterItsEnd) {
  rcu_domain domain;
  std::atomic<int> stage{0};
  std::thread reader([&] {
    wait_until([&] { return stage == 1; });
    const std::scoped_lock section(domain);
    stage = 2;
    wait_until([&] { return stage == 3; });
  });
  rcu_synchronize(domain);
  stage = 1;
  wait_until([&] { return stage == 2; });
  const gp_state state = get_state(domain);
  EXPECT_FALSE(poll_state(state, domain));
  stage = 3;
  reader.join();
  cond_synchronize(state, domain);
  EXPECT_TRUE(poll_state(state, domain));
}

}  // namespace
}  // namespace tandem::rcu
