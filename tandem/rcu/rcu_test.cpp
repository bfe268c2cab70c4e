// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/rcu.hpp"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <vector>

#include "tandem/rcu/detail/process.hpp"
#include "tandem/rcu/detail/test_scheduling.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/stats.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::in_child;
using detail::Occupant;
using detail::wait_until;
using detail::Waiter;

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

constexpr std::uint64_t kAlive = 0x600D'600D'600D'600D;
constexpr std::uint64_t kPoison = 0xDEAD'DEAD'DEAD'DEAD;

/// An object whose memory stays readable after its deletion, so that a too early deletion shows as
/// poison and not as a crash.
struct Canary {
  std::atomic<std::uint64_t> word{kAlive};
  bool alive() const { return word.load(std::memory_order_relaxed) == kAlive; }
  void poison() { word.store(kPoison, std::memory_order_relaxed); }
  void revive() { word.store(kAlive, std::memory_order_relaxed); }
};

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

struct Updates {
  static constexpr int kSlots = 64;
  std::vector<Canary> pool = std::vector<Canary>(kSlots);
  std::atomic<Canary*> current{&pool[0]};
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> violations{0};
  std::atomic<std::uint64_t> sections{0};

  void read(rcu_domain& domain, int depth) {
    for (int i = 0; i < depth; ++i) domain.lock();
    const Canary* seen = current.load(std::memory_order_acquire);
    for (int i = 0; i < 50; ++i) {
      if (!seen->alive()) violations.fetch_add(1);
      if (i == 25 && depth > 1) domain.unlock();
      if (i == 25 && sections.load() % 64 == 0) std::this_thread::yield();
    }
    for (int i = 0; i < (depth > 1 ? depth - 1 : depth); ++i) domain.unlock();
    sections.fetch_add(1);
  }
};

/// The test that has to notice the planted fault "rcu-early-grace-period".
TEST(RcuStress, ReadersNeverSeeAPoisonedObjectUnderSynchronize) {
  rcu_domain& domain = rcu_default_domain();
  Updates updates;
  std::vector<std::thread> readers;
  for (int depth = 1; depth <= 3; ++depth) {
    readers.emplace_back([&, depth] {
      while (!updates.stop) updates.read(domain, depth);
    });
  }
  const auto end = std::chrono::steady_clock::now() + 500ms;
  std::size_t next = 1;
  while (std::chrono::steady_clock::now() < end || updates.sections < 1000) {
    Canary& fresh = updates.pool[next++ % Updates::kSlots];
    fresh.revive();
    Canary* old = updates.current.exchange(&fresh, std::memory_order_acq_rel);
    rcu_synchronize(domain);
    old->poison();
  }
  updates.stop = true;
  for (auto& reader : readers) reader.join();
  EXPECT_EQ(updates.violations, 0U);
}

TEST(RcuStress, RetiredObjectsOutliveTheirReaders) {
  rcu_domain domain;
  std::atomic<int> live{0};
  struct Object : rcu_obj_base<Object> {
    explicit Object(std::atomic<int>& counter) : live(counter) { ++live; }
    ~Object() {
      canary.poison();
      --live;
    }
    Canary canary;
    std::atomic<int>& live;
  };
  std::atomic<Object*> current{new Object(live)};
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> violations{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        const std::scoped_lock section(domain);
        const Object* seen = current.load(std::memory_order_acquire);
        for (int k = 0; k < 20; ++k) violations += !seen->canary.alive();
      }
    });
  }
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      for (int k = 0; k < 20000; ++k) {
        Object* old = current.exchange(new Object(live), std::memory_order_acq_rel);
        if (k % 2 == i) {
          old->retire({}, domain);
        } else {
          rcu_retire(old, std::default_delete<Object>{}, domain);
        }
      }
    });
  }
  threads[2].join();
  threads[3].join();
  stop = true;
  threads[0].join();
  threads[1].join();
  rcu_barrier(domain);
  EXPECT_EQ(live, 1);
  EXPECT_EQ(violations, 0U);
  delete current.load();
}

TEST(RcuStress, ThreadsComeAndGo) {
  Updates updates;
  rcu_domain& domain = rcu_default_domain();
  rcu_domain further;
  std::vector<std::thread> spawners;
  for (int i = 0; i < 2; ++i) {
    spawners.emplace_back([&] {
      while (!updates.stop) {
        std::thread([&] {
          const std::scoped_lock section(further);
          for (int k = 0; k < 20; ++k) updates.read(domain, 1 + k % 2);
        }).join();
      }
    });
  }
  std::size_t next = 1;
  for (int i = 0; i < 2000; ++i) {
    Canary& fresh = updates.pool[next++ % Updates::kSlots];
    fresh.revive();
    Canary* old = updates.current.exchange(&fresh, std::memory_order_acq_rel);
    rcu_synchronize(domain);
    old->poison();
    if (i % 100 == 0) rcu_synchronize(further);
  }
  updates.stop = true;
  for (auto& spawner : spawners) spawner.join();
  EXPECT_EQ(updates.violations, 0U);
}

TEST(RcuStress, ConcurrentSynchronizersShareGracePeriods) {
  rcu_domain domain;
  std::atomic<bool> stop{false};
  std::thread reader([&] {
    while (!stop) const std::scoped_lock section(domain);
  });
  std::vector<std::thread> updaters;
  for (int i = 0; i < 4; ++i) {
    updaters.emplace_back([&] {
      for (int k = 0; k < 500; ++k) rcu_synchronize(domain);
    });
  }
  for (auto& updater : updaters) updater.join();
  stop = true;
  reader.join();
}

// The low bits of an address are the queue's where they are free.
TEST(RcuRetire, WhereverTheObjectIsItsDeleterRunsOnce) {
  static std::map<const char*, int> deleted;
  deleted.clear();
  struct Count {
    void operator()(char* p) const noexcept { ++deleted[p]; }
  };
  rcu_domain domain;
  alignas(8) static char objects[8];
  for (char& object : objects) rcu_retire(&object, Count{}, domain);
  {
    const std::scoped_lock section(domain);
    rcu_barrier(domain);
  }
  rcu_barrier(domain);
  std::map<const char*, int> once;
  for (const char& object : objects) once[&object] = 1;
  EXPECT_EQ(deleted, once);
}

// [saferecl.rcu.domain.func] rcu_retire: what is called is an lvalue, made from d.
TEST(RcuRetire, TheDeleterIsMadeFromTheOneGivenAndCalledAsAnLvalue) {
  static int calls;
  static int made;
  calls = made = 0;
  struct Deleter {
    Deleter() { ++made; }
    Deleter(const Deleter&) = default;
    void operator()(int*) & { ++calls; }
  };
  rcu_domain domain;
  int object = 0;
  rcu_retire(&object, Deleter(), domain);
  struct NoDefault {
    explicit NoDefault(int) {}
    void operator()(int*) & { ++calls; }
  };
  rcu_retire(&object, NoDefault(1), domain);
  rcu_barrier(domain);
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(made, 1);
}

TEST(RcuRetire, ReclaimsWithoutABarrier) {
  std::atomic<bool> deleted{false};
  int object = 0;
  rcu_retire(&object, [&](int* p) { deleted = p == &object; });
  wait_until([&] { return deleted.load(); });
}

TEST(RcuRetire, KeepsTheObjectWhileASectionLasts) {
  rcu_domain domain;
  Occupant occupant(domain);
  std::atomic<bool> deleted{false};
  int object = 0;
  rcu_retire(
      &object, [&](int*) { deleted = true; }, domain);
  std::this_thread::sleep_for(5ms);
  EXPECT_FALSE(deleted);
  occupant.leave();
  rcu_barrier(domain);
  EXPECT_TRUE(deleted);
}

TEST(RcuRetire, WorksInsideASection) {
  rcu_domain domain;
  std::atomic<int> deleted{0};
  int object = 0;
  {
    const std::scoped_lock section(domain);
    for (int i = 0; i < 100; ++i)
      rcu_retire(
          &object, [&](int*) { ++deleted; }, domain);
    EXPECT_EQ(deleted, 0);
  }
  rcu_barrier(domain);
  EXPECT_EQ(deleted, 100);
}

// [saferecl.rcu.base]/9, [saferecl.rcu.domain.members]/6: they may run deleters, and do not.
TEST(RcuRetire, NoDeleterRunsInRetireOrUnlock) {
  rcu_domain domain;
  std::atomic<int> deleted{0};
  std::atomic<int> here{0};
  const auto self = std::this_thread::get_id();
  int object = 0;
  while (deleted < 1000) {
    rcu_retire(
        &object,
        [&](int*) {
          here += std::this_thread::get_id() == self ? 1 : 0;
          ++deleted;
        },
        domain);
    for (int i = 0; i < 10; ++i) const std::scoped_lock section(domain);
  }
  EXPECT_EQ(here, 0);
  rcu_barrier(domain);
}

TEST(RcuRetire, TakesADeleterThatOwnsSomething) {
  rcu_domain domain;
  auto owned = std::make_unique<int>(1);
  int seen = 0;
  rcu_retire(
      &seen, [owned = std::move(owned)](int* p) { *p = *owned; }, domain);
  rcu_barrier(domain);
  EXPECT_EQ(seen, 1);
}

TEST(RcuRetire, AFloodIsHeldBackToWhatIsReclaimed) {
  rcu_domain domain;
  std::atomic<std::uint64_t> deleted{0};
  std::uint64_t highest = 0;
  int object = 0;
  constexpr std::uint64_t kCount = 300'000;
  for (std::uint64_t i = 0; i < kCount; ++i) {
    rcu_retire(
        &object, [&](int*) { deleted.fetch_add(1, std::memory_order_relaxed); }, domain);
    highest = std::max(highest, i + 1 - deleted.load(std::memory_order_relaxed));
  }
  rcu_barrier(domain);
  EXPECT_EQ(deleted, kCount);
  EXPECT_LT(highest, kCount / 2);
}

// [saferecl.rcu.base]
TEST(RcuObjBase, CopiesAndMovesItsUserWithoutItsLinks) {
  struct Object : rcu_obj_base<Object, void (*)(Object*)> {
    int value = 0;
  };
  Object a;
  a.value = 3;
  Object b = a;
  Object c = std::move(b);
  b = c;
  EXPECT_EQ(b.value, 3);
  rcu_domain domain;
  a.retire([](Object* object) { object->value = 4; }, domain);
  rcu_barrier(domain);
  EXPECT_EQ(a.value, 4);
}

// [saferecl.rcu.base]/6 and its exposition: nothing of the base shows in what derives from it.
struct Chain {
  Chain* next = nullptr;
  int run() const { return 7; }
};
struct Inconspicuous : Chain, rcu_obj_base<Inconspicuous> {
  struct Node {};
  Node* node = nullptr;
  int both() { return next == nullptr ? run() : 0; }
};
static_assert(std::is_trivially_copyable_v<rcu_obj_base<Canary>>);

TEST(RcuObjBase, LeavesNamesAndCopiesToItsUser) {
  auto* const object = new Inconspicuous;
  EXPECT_EQ(object->both(), 7);
  object->retire();
  rcu_barrier();
}

/// [saferecl.rcu.base]/5 asks for default construction and move assignment.
TEST(RcuObjBase, AssignsTheDeleter) {
  static int assigned;
  static int called;
  struct Deleter {
    Deleter() = default;
    Deleter(Deleter&&) = delete;
    Deleter& operator=(Deleter&&) noexcept {
      ++assigned;
      return *this;
    }
    void operator()(void*) & { ++called; }  // called as an lvalue
  };
  struct Object : rcu_obj_base<Object, Deleter> {};
  assigned = called = 0;
  Object object;
  object.retire();
  rcu_barrier();
  EXPECT_EQ(called, 1);
  EXPECT_GE(assigned, 2);
}

TEST(RcuRetire, SchedulesNothingIfMovingTheDeleterThrows) {
  static int called;
  struct Deleter {
    Deleter() = default;
    Deleter(Deleter&& other) : moves(other.moves + 1) {
      if (moves > 0) throw std::runtime_error("moved");
    }
    void operator()(int*) { ++called; }
    int moves = 0;
  };
  called = 0;
  int object = 0;
  EXPECT_THROW(rcu_retire(&object, Deleter()), std::runtime_error);
  rcu_barrier();
  EXPECT_EQ(called, 0);
}

TEST(RcuBarrier, WaitsForEverythingRetiredBefore) {
  rcu_domain domain;
  std::atomic<int> deleted{0};
  int object = 0;
  for (int round = 1; round <= 200; ++round) {
    for (int i = 0; i < 10; ++i)
      rcu_retire(
          &object, [&](int*) { ++deleted; }, domain);
    rcu_barrier(domain);
    ASSERT_EQ(deleted, round * 10);
  }
}

// An earlier object waits for its grace period already; what came later needs the next one.
TEST(RcuBarrier, WaitsForWhatIsRetiredWhileAnEarlierOneWaits) {
  rcu_domain domain;
  std::atomic<int> deleted{0};
  int object = 0;
  const auto count = [&](int*) { ++deleted; };
  for (int round = 1; round <= 20; ++round) {
    const std::uint64_t waits = stats(domain).waits;
    Occupant old(domain);
    rcu_retire(&object, count, domain);
    wait_until([&] { return stats(domain).waits != waits; });  // the domain's thread does
    Occupant young(domain);
    rcu_retire(&object, count, domain);
    std::thread leaver([&] {
      old.leave();
      std::this_thread::sleep_for(1ms);
      young.leave();
    });
    rcu_barrier(domain);
    EXPECT_EQ(deleted, 2 * round);
    leaver.join();
  }
}

TEST(RcuBarrier, ReturnsInsideASectionThatBeganAfterTheRetires) {
  rcu_domain domain;
  int object = 0;
  for (int round = 0; round < 200; ++round) {
    std::atomic<bool> before{false};
    std::atomic<bool> within{false};
    rcu_retire(
        &object, [&](int*) { before = true; }, domain);
    {
      const std::scoped_lock section(domain);
      rcu_retire(
          &object, [&](int*) { within = true; }, domain);
      rcu_barrier(domain);
      ASSERT_TRUE(before);
      ASSERT_FALSE(within);
    }
    rcu_barrier(domain);
    ASSERT_TRUE(within);
  }
}

TEST(RcuBarrier, InsideASectionWaitsForOlderSectionsOnly) {
  rcu_domain domain;
  Occupant old(domain);
  int object = 0;
  std::atomic<bool> leaves{false};
  std::atomic<bool> deleted{false};
  std::atomic<bool> early{false};
  rcu_retire(
      &object,
      [&](int*) {
        early = !leaves;
        deleted = true;
      },
      domain);
  std::thread leaver([&] {
    std::this_thread::sleep_for(5ms);
    leaves = true;
    old.leave();
  });
  {
    const std::scoped_lock section(domain);
    rcu_barrier(domain);
    EXPECT_TRUE(deleted);
    EXPECT_FALSE(early);
  }
  leaver.join();
}

TEST(RcuBarrier, DeletersMayRetireAndCallBarrier) {
  rcu_domain domain;
  rcu_domain other;
  std::atomic<int> deleted{0};
  int object = 0;
  for (int round = 1; round <= 50; ++round) {
    rcu_retire(
        &object,
        [&](int* p) {
          rcu_retire(
              p, [&](int*) { ++deleted; }, domain);
          rcu_retire(
              p, [&](int*) { ++deleted; }, other);
          rcu_barrier(other);
          rcu_barrier(domain);  // runs the inner one, not the one it is in
          ++deleted;
        },
        domain);
    rcu_barrier(domain);
    ASSERT_EQ(deleted, 3 * round);
  }
}

TEST(RcuBarrier, InASectionIsNotHeldUpByAThreadThatRunsItsOwn) {
  rcu_domain domain;
  std::atomic<bool> inside{false};
  std::atomic<bool> retires{false};
  std::atomic<bool> go_on{false};
  const Waiter reader([&] {
    const std::scoped_lock section(domain);
    inside = true;
    wait_until(go_on);
    rcu_barrier(domain);
  });
  int deleted = 0;
  const Waiter updater([&] {
    wait_until(retires);
    rcu_retire(
        &deleted, [](int* count) { ++*count; }, domain);
  });
  wait_until(inside);
  const detail::NoThreads none;
  retires = true;
  wait_until([&] { return stats(domain).waits != 0; });
  EXPECT_FALSE(updater.returned());
  go_on = true;
  reader.wait();
  updater.wait();
  EXPECT_EQ(deleted, 1);
}

TEST(RcuBarrier, ManyThreadsMayCallIt) {
  rcu_domain domain;
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 200; ++k) {
        std::atomic<bool> deleted{false};
        rcu_retire(
            &deleted, [](std::atomic<bool>* flag) { *flag = true; }, domain);
        if (k % 2 == 0) {
          rcu_barrier(domain);
        } else {
          const std::scoped_lock section(domain);
          rcu_barrier(domain);
        }
        failures += !deleted;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
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

TEST(RcuFork, AChildUsesEveryDomainAtOnce) {
  rcu_domain domain;
  Occupant occupant(rcu_default_domain());  // absent in the child: must hold nothing up there
  Occupant another(domain);
  const int result = in_child([&] {
    for (rcu_domain* each : {&rcu_default_domain(), &domain}) {
      { const std::scoped_lock section(*each); }
      rcu_synchronize(*each);
      int deleted = 0;
      rcu_retire(
          &deleted, [](int* count) { ++*count; }, *each);
      rcu_barrier(*each);
      if (deleted != 1) return 1;
    }
    return 0;
  });
  EXPECT_EQ(result, 0);
}

TEST(RcuFork, TheRetireThreadIsStartedAgainInTheChild) {
  std::atomic<bool> warm{false};
  rcu_retire(&warm, [](std::atomic<bool>* flag) { *flag = true; });
  wait_until([&] { return warm.load(); });
  const int result = in_child([] {
    std::atomic<bool> deleted{false};
    rcu_retire(&deleted, [](std::atomic<bool>* flag) { *flag = true; });
    wait_until([&] { return deleted.load(); });
    return 0;
  });
  EXPECT_EQ(result, 0);
}

TEST(RcuFork, WhatTheParentRetiredRunsInTheParentOnly) {
  rcu_domain domain;
  auto occupant = std::make_unique<Occupant<rcu_domain>>(domain);
  int deleted = 0;
  rcu_retire(
      &deleted, [](int* count) { ++*count; }, domain);
  const int result = in_child([&] {
    rcu_barrier(domain);
    return deleted;
  });
  EXPECT_EQ(result, 0);
  occupant->leave();
  rcu_barrier(domain);
  EXPECT_EQ(deleted, 1);
}

TEST(RcuFork, AnOpenSectionGoesOnInTheChild) {
  if (detail::kInstrumented) GTEST_SKIP() << "ThreadSanitizer: no threads in the child";
  for (const bool use_default : {true, false}) {
    rcu_domain further;
    rcu_domain& domain = use_default ? rcu_default_domain() : further;
    domain.lock();
    const int result = in_child([&] {
      std::atomic<bool> done{false};
      std::thread updater([&] {
        rcu_synchronize(domain);
        done = true;
      });
      std::this_thread::sleep_for(10ms);
      const bool early = done;
      domain.unlock();
      updater.join();
      return early ? 1 : 0;
    });
    domain.unlock();
    EXPECT_EQ(result, 0);
  }
}

TEST(RcuFork, AChildOfTheRawSystemCallIsNoticed) {
  if (detail::kInstrumented) {
    GTEST_SKIP() << "ThreadSanitizer takes the parent's threads for the child's";
  }
  rcu_domain& domain = rcu_default_domain();
  Occupant occupant(domain);
  { const std::scoped_lock section(domain); }
  const std::uint64_t parent = detail::current_generation();
  const auto child = static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
  if (child == 0) {
    { const std::scoped_lock section(domain); }
    rcu_synchronize(domain);
    ::_exit(detail::current_generation() != parent ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(RcuFork, ADeleterMayFork) {
  rcu_domain domain;
  pid_t child = -1;
  rcu_retire(
      &child,
      [&](pid_t* pid) {
        rcu_domain* const inherited = &domain;
        const pid_t result = ::fork();
        if (result == 0) {
          int deleted = 0;
          rcu_retire(
              &deleted, [](int* count) { ++*count; }, *inherited);
          rcu_barrier(*inherited);
          ::_exit(deleted == 1 ? 0 : 1);
        }
        *pid = result;
      },
      domain);
  rcu_barrier(domain);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(RcuFork, AForkAmidReadersUpdatersAndThreadsThatComeAndGoNeverHangs) {
  Updates updates;
  rcu_domain domain;
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    while (!updates.stop) updates.read(domain, 2);
  });
  threads.emplace_back([&] {
    int object = 0;
    while (!updates.stop) {
      for (int i = 0; i < 100; ++i)
        rcu_retire(
            &object, [](int*) {}, domain);
      rcu_barrier(domain);
    }
  });
  threads.emplace_back([&] {
    while (!updates.stop) rcu_synchronize(domain);
  });
  threads.emplace_back([&] {
    while (!updates.stop) std::thread([&] { updates.read(domain, 1); }).join();
  });
  for (int round = 0; round < 100; ++round) {
    const int result = in_child([&] {
      rcu_synchronize(domain);
      int deleted = 0;
      {
        const std::scoped_lock section(domain);
        rcu_retire(
            &deleted, [](int* count) { ++*count; }, domain);
      }
      rcu_barrier(domain);
      return deleted == 1 ? in_child([&] {  // and once more in a grandchild
        rcu_synchronize(domain);
        rcu_barrier(domain);
        return 0;
      })
                          : 1;
    });
    ASSERT_EQ(result, 0) << "round " << round;
  }
  updates.stop = true;
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace tandem::rcu
