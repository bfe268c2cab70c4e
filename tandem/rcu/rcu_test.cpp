// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/rcu.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>

#include "tandem/rcu/detail/test_threads.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::wait_until;

// [saferecl.rcu.domain.general], [rcu.syn]: what is declared, default arguments by their use.
static_assert(!std::is_copy_constructible_v<rcu_domain>);
static_assert(!std::is_copy_assignable_v<rcu_domain>);
static_assert(std::is_same_v<decltype(&rcu_domain::lock), void (rcu_domain::*)() noexcept>);
static_assert(std::is_same_v<decltype(&rcu_domain::try_lock), bool (rcu_domain::*)() noexcept>);
static_assert(std::is_same_v<decltype(&rcu_domain::unlock), void (rcu_domain::*)() noexcept>);
static_assert(std::is_same_v<decltype(&rcu_default_domain), rcu_domain& (*)() noexcept>);
static_assert(std::is_same_v<decltype(&rcu_synchronize), void (*)(rcu_domain&) noexcept>);
static_assert(std::is_same_v<decltype(&rcu_barrier), void (*)(rcu_domain&) noexcept>);
static_assert(noexcept(rcu_synchronize()) && noexcept(rcu_barrier()));
static_assert(std::is_same_v<decltype(&rcu_retire<int, void (*)(int*)>),
                             void (*)(int*, void (*)(int*), rcu_domain&)>);
static_assert(std::is_same_v<decltype(rcu_retire(static_cast<int*>(nullptr))), void>);

// [saferecl.rcu.base]/1, and retire()'s declaration.
struct Listed : rcu_obj_base<Listed> {};
static_assert(
    std::is_same_v<rcu_obj_base<Listed>, rcu_obj_base<Listed, std::default_delete<Listed>>>);
static_assert(noexcept(std::declval<Listed>().retire()));
static_assert(std::is_same_v<decltype(&Listed::retire),
                             void (rcu_obj_base<Listed>::*)(std::default_delete<Listed>,
                                                            rcu_domain&) noexcept>);
// Not by the type traits, which ask for a destructor as well.
template <class T, class... Arguments>
concept Makeable = requires {
  new T(std::declval<Arguments>()...);
};
static_assert(Makeable<Listed> && Makeable<Listed, const Listed&> && Makeable<Listed, Listed>);
static_assert(!Makeable<rcu_obj_base<Listed>>);
static_assert(!Makeable<rcu_obj_base<Listed>, const rcu_obj_base<Listed>&>);
static_assert(!Makeable<rcu_obj_base<Listed>, rcu_obj_base<Listed>>);
static_assert(!std::is_copy_assignable_v<rcu_obj_base<Listed>>);
static_assert(!std::is_move_assignable_v<rcu_obj_base<Listed>>);
static_assert(!std::is_destructible_v<rcu_obj_base<Listed>>);

// [saferecl.rcu.domain.func]/1
TEST(RcuDomain, TheDefaultOneIsTheSameInEveryThread) {
  rcu_domain* seen = nullptr;
  std::thread([&] { seen = &rcu_default_domain(); }).join();
  EXPECT_EQ(seen, &rcu_default_domain());
}

// [saferecl.rcu.domain.general]/1, [saferecl.rcu.domain.members]/3, /4
TEST(RcuDomain, WorksWithTheStandardLocks) {
  rcu_domain further;
  {
    const std::scoped_lock both(rcu_default_domain(), further);
    std::unique_lock<rcu_domain> nested(further, std::try_to_lock);
    EXPECT_TRUE(nested.owns_lock());
  }
  rcu_synchronize();
  rcu_synchronize(further);
}

// [saferecl.rcu.domain.members]/5: a violation of the precondition is found.
TEST(RcuDomainDeath, AnUnlockWithoutALockEndsTheProgram) {
  rcu_domain domain;
  { const std::scoped_lock section(domain); }
  EXPECT_DEATH(domain.unlock(), "");
}

// [saferecl.rcu.domain.func]/2: it would wait for itself.
TEST(RcuSynchronizeDeath, InsideItsOwnSectionEndsTheProgram) {
  rcu_domain domain;
  const std::scoped_lock section(domain);
  EXPECT_DEATH(rcu_synchronize(domain), "");
}

TEST(RcuDomain, ItsDestructorRunsWhatIsRetired) {
  std::atomic<int> deleted{0};
  int object = 0;
  for (int round = 0; round < 50; ++round) {
    rcu_domain domain;
    rcu_retire(
        &object,
        [&](int* p) {
          rcu_retire(
              p, [&](int*) { ++deleted; }, domain);
        },
        domain);
  }
  EXPECT_EQ(deleted, 50);
}

// A program may call exit() in a section: what is destroyed then must not wait for it.
TEST(RcuDomain, ItsDestructorEndsASectionOfItsThread) {
  EXPECT_EQ(detail::watched(60,
                            [] {
                              std::atomic<int> deleted{0};
                              int object = 0;
                              const auto count = [&](int*) { ++deleted; };
                              {
                                rcu_domain domain;
                                rcu_retire(&object, count, domain);
                                domain.lock();
                                domain.lock();
                                rcu_retire(&object, count, domain);
                              }
                              return deleted == 2 ? 0 : 1;
                            }),
            0);
}

TEST(RcuDomainDeath, DestroyedInADeleterOfItsOwnEndsTheProgram) {
  EXPECT_DEATH(
      {
        auto* const domain = new rcu_domain;
        rcu_retire(
            domain, [](rcu_domain* mine) { delete mine; }, *domain);
        rcu_barrier(*domain);
      },
      "");
}

TEST(RcuDomain, AThreadMayOutliveDomainsThatItUsed) {
  for (int round = 0; round < 100; ++round) {
    auto domain = std::make_unique<rcu_domain>();
    { const std::scoped_lock section(*domain); }
    std::atomic<int> stage{0};
    std::thread user([&] {
      { const std::scoped_lock section(*domain); }
      stage = 1;
      wait_until([&] { return stage == 2; });
    });
    wait_until([&] { return stage == 1; });
    rcu_synchronize(*domain);
    domain.reset();
    stage = 2;
    user.join();
  }
}

TEST(RcuDomain, ItsDestructorRunsWhatADeleterThatIsStillRunningRetires) {
  std::atomic<bool> deleted{false};
  std::atomic<bool> running{false};
  int object = 0;
  {
    rcu_domain domain;
    rcu_retire(
        &object,
        [&](int* p) {
          running = true;
          std::this_thread::sleep_for(10ms);
          rcu_retire(
              p, [&](int*) { deleted = true; }, domain);
        },
        domain);
    wait_until([&] { return running.load(); });
  }
  EXPECT_TRUE(deleted);
}

}  // namespace
}  // namespace tandem::rcu
