// SPDX-License-Identifier: Apache-2.0
// rcu_synchronize(): which sections it waits for.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <list>
#include <mutex>
#include <thread>
#include <vector>

#include "tandem/rcu/detail/test_scheduling.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/stats.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::Occupant;
using detail::wait_until;
using detail::Waiter;

// [saferecl.rcu.domain.func]/2
TEST(RcuSynchronize, WaitsForASectionThatBeganBefore) {
  rcu_domain domain;
  Occupant occupant(domain);
  const Waiter updater([&] { rcu_synchronize(domain); });
  wait_until([&] { return stats(domain).waits != 0 || updater.returned(); });  // it sleeps
  EXPECT_FALSE(updater.returned());
  occupant.leave();
  EXPECT_TRUE(updater.returned_within(10s)) << "nobody woke it";
}

// [saferecl.rcu.domain.func]/2
TEST(RcuSynchronize, DoesNotWaitForASectionThatBeganMeanwhile) {
  rcu_domain domain;
  Occupant old(domain);
  const Waiter updater([&] { rcu_synchronize(domain); });
  wait_until([&] { return stats(domain).waits != 0; });  // it has begun
  Occupant young(domain);
  old.leave();
  EXPECT_TRUE(updater.returned_within(10s));
}

// [saferecl.rcu.general]/3, /4: locks and unlocks of one domain are no concern of another.
TEST(RcuSynchronize, SectionsOfTwoDomainsOverlapAsTheyLike) {
  rcu_domain one;
  rcu_domain other;
  std::atomic<int> stage{0};
  std::thread reader([&] {
    one.lock();
    other.lock();
    one.unlock();
    stage = 1;
    wait_until([&] { return stage == 2; });
    other.unlock();
  });
  wait_until([&] { return stage == 1; });
  rcu_synchronize(one);
  const Waiter updater([&] { rcu_synchronize(other); });
  wait_until([&] { return stats(other).waits != 0 || updater.returned(); });
  EXPECT_FALSE(updater.returned());
  stage = 2;
  reader.join();
}

// Each turn that it gave to a thread that does not read could last a slice of the scheduler's, some
// milliseconds, when the readers have long left.
TEST(RcuSynchronize, GivesItsCpuAwayOnlyToSleep) {
  rcu_domain domain;
  Occupant occupant(domain);
  const long losses =
      detail::cpu_losses_before_sleep([&] { rcu_synchronize(domain); }, [&] { occupant.leave(); });
  if (losses < 0) GTEST_SKIP() << "/proc does not tell what the thread does";
  EXPECT_LE(losses, detail::kFewLosses);
}

// More than drive grace periods side by side.
TEST(RcuSynchronize, EachOfManyCallersWaitsForASectionThatBeganBefore) {
  rcu_domain domain;
  Occupant occupant(domain);
  std::list<Waiter> callers;
  for (int i = 0; i < 40; ++i) callers.emplace_back([&] { rcu_synchronize(domain); });
  wait_until([&] { return stats(domain).waits != 0; });
  // Further ones come and find a grace period that others wait for.
  for (int i = 0; i < 10; ++i) callers.emplace_back([&] { rcu_synchronize(domain); });
  EXPECT_FALSE(callers.back().returned_within(std::chrono::milliseconds(20)));
  for (const Waiter& caller : callers) EXPECT_FALSE(caller.returned());
  occupant.leave();
}

TEST(RcuSynchronize, DoesNotWaitForAnotherDomain) {
  rcu_domain domain;
  rcu_domain other;
  Occupant occupant(other);
  Occupant another(rcu_default_domain());
  rcu_synchronize(domain);
}

TEST(RcuSynchronize, DoesNotWaitForSectionsThatBeginLater) {
  rcu_domain domain;
  std::atomic<bool> stop{false};
  // Two threads whose sections overlap without a gap.
  std::atomic<int> turn{0};
  std::vector<std::thread> relay;
  for (int id = 0; id < 2; ++id) {
    relay.emplace_back([&, id] {
      while (!stop) {
        wait_until([&] { return turn == id || stop; });
        const std::scoped_lock section(domain);
        turn = 1 - id;
        wait_until([&] { return turn == id || stop; });
      }
    });
  }
  for (int i = 0; i < 20; ++i) rcu_synchronize(domain);
  stop = true;
  for (auto& thread : relay) thread.join();
}

TEST(RcuSynchronize, AnInnerUnlockDoesNotEndTheSection) {
  rcu_domain domain;
  std::atomic<int> stage{0};
  std::thread reader([&] {
    domain.lock();
    domain.lock();
    domain.unlock();
    stage = 1;
    wait_until([&] { return stage == 2; });
    domain.unlock();
  });
  wait_until([&] { return stage == 1; });
  std::atomic<bool> done{false};
  std::thread updater([&] {
    rcu_synchronize(domain);
    done = true;
  });
  std::this_thread::sleep_for(5ms);
  EXPECT_FALSE(done);
  stage = 2;
  updater.join();
  reader.join();
}

// [saferecl.rcu.domain.general]/2: to any depth.
TEST(RcuSynchronize, OnlyTheOutermostOfManyUnlocksEndsTheSection) {
  rcu_domain domain;
  std::atomic<int> stage{0};
  std::thread reader([&] {
    constexpr int kDepth = 10'000;
    for (int i = 0; i < kDepth; ++i) domain.lock();
    for (int i = 1; i < kDepth; ++i) domain.unlock();
    stage = 1;
    wait_until([&] { return stage == 2; });
    domain.unlock();
    EXPECT_FALSE(domain.in_section());
  });
  wait_until([&] { return stage == 1; });
  const Waiter updater([&] { rcu_synchronize(domain); });
  wait_until([&] { return stats(domain).waits != 0 || updater.returned(); });  // it sleeps
  EXPECT_FALSE(updater.returned());
  stage = 2;
  EXPECT_TRUE(updater.returned_within(10s));
  reader.join();
}

TEST(RcuSynchronize, AThreadThatExitsInsideASectionHoldsNobodyUp) {
  rcu_domain domain;
  std::thread([&] { domain.lock(); }).join();
  rcu_synchronize(domain);
}

}  // namespace
}  // namespace tandem::rcu
