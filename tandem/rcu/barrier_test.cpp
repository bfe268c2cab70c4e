// SPDX-License-Identifier: Apache-2.0
// rcu_barrier(), also in sections.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "tandem/rcu/call.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/stats.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::Occupant;
using detail::wait_until;
using detail::Waiter;
using detail::watched;

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

// Whose code that is may be a plugin's.
TEST(RcuBarrier, AfterOneInASectionTheCodeOfWhatItRanMayBeUnloaded) {
  rcu_domain domain;
  static int ran;
  static int object;
  ran = 0;
  constexpr std::size_t kPage = 4096;
  void* const page =
      ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  auto* const operation = new (page) detail::Operation{[](void*) noexcept { ++ran; }, true};
  for (int round = 1; round <= 20; ++round) {  // in some the worker comes first
    ASSERT_TRUE(detail::DomainAccess::push<3>(
        domain,
        {reinterpret_cast<std::uintptr_t>(&object) | detail::kBare,
         reinterpret_cast<std::uintptr_t>(operation), detail::DomainAccess::stamp(domain)},
        sizeof object));
    {
      const std::scoped_lock section(domain);
      rcu_barrier(domain);
      ASSERT_EQ(ran, round);
      ASSERT_EQ(::mprotect(page, kPage, PROT_NONE), 0);
    }
    rcu_barrier(domain);
    ASSERT_EQ(::mprotect(page, kPage, PROT_READ | PROT_WRITE), 0);
  }
  ::munmap(page, kPage);
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

/// The test that has to notice the planted fault "rcu-barrier-too-early".
///
/// Both the barrier and the domain's thread wait for the same grace period; the deleter is slow,
/// and in some rounds it is the thread that runs it.
TEST(RcuBarrier, WaitsForADeleterThatAnotherThreadRuns) {
  rcu_domain domain;
  int early = 0;
  for (int round = 0; round < 50; ++round) {
    std::atomic<bool> inside{false};
    std::atomic<bool> calls{false};
    std::atomic<bool> returned{false};
    std::thread reader([&] {
      const std::scoped_lock section(domain);
      inside = true;
      wait_until([&] { return calls.load(); });
      std::this_thread::sleep_for(2ms);
    });
    wait_until([&] { return inside.load(); });
    rcu_retire(
        &returned,
        [](std::atomic<bool>* flag) {
          std::this_thread::sleep_for(5ms);
          *flag = true;
        },
        domain);
    calls = true;
    rcu_barrier(domain);
    early += returned ? 0 : 1;
    wait_until([&] { return returned.load(); });
    reader.join();
  }
  EXPECT_EQ(early, 0);
}

/// The test that has to notice the planted fault "rcu-barrier-blocks-in-deleter".
///
/// The section waits for the deleter. The deleter waits for an object that the section cannot hold,
/// behind itself in the queue.
TEST(RcuBarrier, WaitsForNoSectionThatBeganAfterTheRetires) {
  const int result = watched(20, [] {
    for (int round = 0; round < 50; ++round) {
      rcu_domain domain;
      std::atomic<bool> ran{false};
      std::atomic<bool> inside{false};
      int object = 0;
      callback_head head;
      rcu_retire(
          &object, [&](int*) { ran = true; }, domain);
      std::thread reader([&] {
        const std::scoped_lock section(domain);
        inside = true;
        wait_until(ran);
      });
      wait_until(inside);
      // Has no stamp: waits for the reader, and must not hold up what has one.
      if (round % 2 == 1)
        call(
            head, [](callback_head*) noexcept {}, sizeof head, domain);
      rcu_barrier(domain);
      reader.join();
    }
    return 0;
  });
  EXPECT_EQ(result, 0);
}

}  // namespace
}  // namespace tandem::rcu
