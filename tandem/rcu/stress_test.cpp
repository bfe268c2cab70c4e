// SPDX-License-Identifier: Apache-2.0
// Readers, updaters and threads that come and go, all at once.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tandem/rcu/detail/test_canary.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::Canary;
using detail::Updates;

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

// While all of them wait, none is interrupted for the others.
TEST(RcuStress, ReadersThatAreUpdatersNeverSeeAPoisonedObject) {
  rcu_domain domain;
  constexpr int kThreads = 4;
  struct alignas(kCacheLine) Published {
    std::atomic<Canary*> pointer{nullptr};
  };
  std::array<Published, kThreads> all;
  std::atomic<std::uint64_t> violations{0};
  std::vector<std::vector<Canary>> pools(kThreads);
  for (std::size_t i = 0; i < kThreads; ++i) {
    pools[i] = std::vector<Canary>(4);
    all[i].pointer = pools[i].data();
  }
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (std::size_t round = 1; round <= 5000; ++round) {
        for (std::size_t section = 0; section < round % 3; ++section) {
          const std::scoped_lock here(domain);
          const Canary* const seen =
              all[(i + 1 + section) % kThreads].pointer.load(std::memory_order_acquire);
          for (int look = 0; look < 10; ++look) violations += seen->alive() ? 0 : 1;
        }
        Canary& fresh = pools[i][round % 4];
        fresh.revive();
        Canary* const old = all[i].pointer.exchange(&fresh, std::memory_order_acq_rel);
        rcu_synchronize(domain);
        old->poison();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(violations, 0U);
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

}  // namespace
}  // namespace tandem::rcu
