// SPDX-License-Identifier: Apache-2.0
// call() and free().
#include "tandem/rcu/call.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "tandem/rcu/detail/test_objects.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::destroyed;
using detail::Plain;
using detail::WithBase;
using detail::WithMember;

TEST(Call, RunsTheFunctionOnceAfterTheGracePeriod) {
  rcu_domain domain;
  struct Counted : callback_head {
    std::atomic<int> runs{0};
  };
  std::vector<Counted> all(5000);
  domain.lock();
  for (Counted& one : all) {
    call(
        one, [](callback_head* head) noexcept { ++static_cast<Counted*>(head)->runs; }, sizeof one,
        domain);
  }
  std::this_thread::sleep_for(5ms);
  for (const Counted& one : all) EXPECT_EQ(one.runs, 0);
  domain.unlock();
  rcu_barrier(domain);
  for (const Counted& one : all) ASSERT_EQ(one.runs, 1);
}

TEST(Call, MayBeCalledAgainFromItsCallback) {
  rcu_domain domain;
  struct Again : callback_head {
    rcu_domain* domain = nullptr;
    std::atomic<int> runs{0};
  } again;
  again.domain = &domain;
  const auto function = [](callback_head* head) noexcept {
    auto* const self = static_cast<Again*>(head);
    struct Local {
      static void run(callback_head* inner) noexcept { ++static_cast<Again*>(inner)->runs; }
    };
    if (++self->runs < 3) call(*self, Local::run, sizeof *self, *self->domain);
  };
  call(again, function, sizeof again, domain);
  while (again.runs < 2) std::this_thread::yield();
  rcu_barrier(domain);
  EXPECT_EQ(again.runs, 2);
}

TEST(Free, DeletesObjectsOfEveryShapeAfterTheGracePeriod) {
  rcu_domain domain;
  destroyed = 0;
  domain.lock();
  for (int i = 0; i < 1000; ++i) {
    rcu::free(new Plain, domain);
    rcu::free(new WithBase, domain);
    rcu::free<&WithMember::rcu>(new WithMember, domain);
  }
  rcu::free(static_cast<Plain*>(nullptr), domain);
  rcu::free(static_cast<WithBase*>(nullptr), domain);
  EXPECT_EQ(destroyed, 0);
  domain.unlock();
  rcu_barrier(domain);
  EXPECT_EQ(destroyed, 3000);
}

/// The test that has to notice the planted fault "rcu-run-twice".
TEST(RcuCallbacks, EachOfManyRunsOnce) {
  rcu_domain domain;
  constexpr std::size_t kObjects = 20'000;
  std::vector<std::atomic<int>> runs(kObjects);
  {
    const std::scoped_lock section(domain);  // they become ready together
    for (auto& count : runs) {
      rcu_retire(
          &count, [](std::atomic<int>* runs_of_it) { ++*runs_of_it; }, domain);
    }
  }
  rcu_barrier(domain);
  for (const auto& count : runs) ASSERT_EQ(count, 1);
}

}  // namespace
}  // namespace tandem::rcu
