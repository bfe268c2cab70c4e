// SPDX-License-Identifier: Apache-2.0
// Plain, fenced and quiescent-state readers beside each other.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/expedite.hpp"
#include "tandem/rcu/grace_period.hpp"
#include "tandem/rcu/quiescent.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/stats.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::Waiter;

TEST(ReaderKinds, NoOtherCpuIsInterruptedForFencedAndQuiescentReaders) {
  rcu_domain domain;
  std::atomic<bool> stop{false};
  std::atomic<int> ready{0};
  std::thread fenced([&] {
    fenced_reader reader(domain);
    { const std::scoped_lock section(reader); }
    ++ready;
    while (!stop) const std::scoped_lock section(reader);
  });
  std::thread quiescent([&] {
    quiescent_reader reader(domain);
    ++ready;
    while (!stop) reader.quiescent();
  });
  while (ready != 2) std::this_thread::yield();
  const domain_stats before = stats(domain);
  for (int i = 0; i < 100; ++i) rcu_synchronize(domain);
  const domain_stats after = stats(domain);
  EXPECT_EQ(after.fences_skipped - before.fences_skipped, 100u);
  stop = true;
  fenced.join();
  quiescent.join();
}

TEST(ReaderKinds, AFencedSectionHoldsGracePeriodsUp) {
  rcu_domain domain;
  fenced_reader reader(domain);
  reader.lock();
  reader.lock();  // nests, also with plain sections
  domain.lock();
  const Waiter waiter([&] { rcu_synchronize(domain); });
  EXPECT_FALSE(waiter.returned_within(10ms));
  domain.unlock();
  reader.unlock();
  EXPECT_FALSE(waiter.returned_within(20ms));
  reader.unlock();
  waiter.wait();
}

/// Readers of every kind against updates that poison what they replace.
TEST(ReaderKinds, OneGracePeriodWaitsForAllOfThem) {
  rcu_domain domain;
  struct Object {
    std::atomic<int> alive{1};
  };
  std::array<Object, 64> objects;
  std::atomic<Object*> current{&objects[0]};
  std::atomic<bool> stop{false};
  std::atomic<long> reads{0};
  std::atomic<long> dead{0};
  const auto look = [&] {
    const Object* const seen = current.load(std::memory_order_acquire);
    for (int i = 0; i < 4; ++i) dead += seen->alive.load(std::memory_order_relaxed) == 0;
    ++reads;
  };
  std::vector<std::thread> readers;
  readers.emplace_back([&] {
    while (!stop) {
      const std::scoped_lock section(domain);
      look();
    }
  });
  readers.emplace_back([&] {
    fenced_reader reader(domain);
    while (!stop) {
      const std::scoped_lock section(reader);
      look();
    }
  });
  readers.emplace_back([&] {
    quiescent_reader reader(domain);
    while (!stop) {
      look();
      reader.quiescent();
      if (reads % 1024 == 0) {
        reader.offline();
        reader.online();
      }
    }
  });
  readers.emplace_back([&] {  // one thread, all kinds
    fenced_reader fenced(domain);
    while (!stop) {
      {
        const std::scoped_lock plain(domain);
        look();
        const std::scoped_lock inner(fenced);
        look();
      }
      quiescent_reader quiescent(domain);
      const std::scoped_lock within(domain);
      look();
    }
  });
  const auto end = std::chrono::steady_clock::now() + 300ms;
  std::size_t next = 0;
  for (int i = 0; std::chrono::steady_clock::now() < end; ++i) {
    next = (next + 1) % objects.size();
    objects[next].alive = 1;
    Object* const old = current.exchange(&objects[next], std::memory_order_acq_rel);
    switch (i % 4) {
      case 0:
        rcu_synchronize(domain);
        break;
      case 1:
        rcu_synchronize_expedited(domain);
        break;
      case 2: {
        const gp_state state = start_poll(domain);
        while (!poll_state(state, domain)) std::this_thread::yield();
        break;
      }
      default:
        cond_synchronize(get_state(domain), domain);
    }
    old->alive = 0;
  }
  stop = true;
  for (auto& reader : readers) reader.join();
  EXPECT_GT(reads, 0);
  EXPECT_EQ(dead, 0);
}

}  // namespace
}  // namespace tandem::rcu
