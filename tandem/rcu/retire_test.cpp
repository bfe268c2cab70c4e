// SPDX-License-Identifier: Apache-2.0
// rcu_retire() and rcu_obj_base.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <utility>

#include "tandem/rcu/detail/test_canary.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::Canary;
using detail::Occupant;
using detail::wait_until;

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

}  // namespace
}  // namespace tandem::rcu
