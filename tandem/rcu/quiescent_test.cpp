// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/quiescent.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "tandem/rcu/call.hpp"
#include "tandem/rcu/detail/test_busy_worker.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/expedite.hpp"
#include "tandem/rcu/grace_period.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/stats.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::BusyWorker;
using detail::wait_until;
using detail::Waiter;

TEST(QuiescentReader, HoldsGracePeriodsUpUntilItIsQuiescent) {
  rcu_domain domain;
  quiescent_reader reader(domain);
  const Waiter waiter([&] { rcu_synchronize(domain); });
  EXPECT_FALSE(waiter.returned_within(20ms));
  reader.quiescent();
  waiter.wait();
}

TEST(QuiescentReader, HoldsNobodyUpWhileOffline) {
  rcu_domain domain;
  quiescent_reader reader(domain);
  reader.offline();
  EXPECT_FALSE(reader.is_online());
  {
    Waiter waiter([&] { rcu_synchronize(domain); });
  }
  reader.online();
  EXPECT_TRUE(reader.is_online());
  const Waiter waiter([&] { rcu_synchronize(domain); });
  EXPECT_FALSE(waiter.returned_within(20ms));
  reader.offline();
  waiter.wait();
}

TEST(QuiescentReader, QuiescentInsideAPlainSectionDoesNothing) {
  rcu_domain domain;
  quiescent_reader reader(domain);
  domain.lock();
  const Waiter waiter([&] { rcu_synchronize(domain); });
  EXPECT_FALSE(waiter.returned_within(10ms));
  reader.quiescent();
  EXPECT_FALSE(waiter.returned_within(20ms));
  domain.unlock();  // leaves the plain section only
  EXPECT_FALSE(waiter.returned_within(20ms));
  reader.quiescent();
  waiter.wait();
}

TEST(QuiescentReader, MayWaitForGracePeriodsItself) {
  rcu_domain domain;
  quiescent_reader one(domain);
  std::atomic<bool> other_waits{false};
  std::thread other([&] {
    quiescent_reader two(domain);
    other_waits = true;
    for (int i = 0; i < 100; ++i) rcu_synchronize(domain);  // each waits for the other's
  });
  wait_until(other_waits);
  for (int i = 0; i < 100; ++i) rcu_synchronize(domain);
  bool deleted = false;
  rcu_retire(
      &deleted, [](bool* flag) { *flag = true; }, domain);
  rcu_barrier(domain);
  EXPECT_TRUE(deleted);
  cond_synchronize(start_poll(domain), domain);
  rcu_synchronize_expedited(domain);
  EXPECT_TRUE(one.is_online());
  one.offline();
  other.join();
}

TEST(QuiescentReader, SleepingGracePeriodsAreWoken) {
  rcu_domain domain;
  quiescent_reader reader(domain);
  for (int i = 0; i < 20; ++i) {
    const std::uint64_t before = stats(domain).waits;
    const Waiter waiter([&] { rcu_synchronize(domain); });
    while (stats(domain).waits == before) std::this_thread::yield();
    reader.quiescent();
    waiter.wait();
  }
}

TEST(QuiescentReader, AThreadThatRetiresTooMuchWaitsWhereItIsQuiescent) {
  constexpr std::size_t kBig = std::size_t{1} << 20;
  rcu_domain domain;
  std::vector<callback_head> heads(128);
  std::size_t used = 0;
  const BusyWorker worker(domain);
  quiescent_reader reader(domain);
  const auto retire_too_much = [&] {
    for (int i = 0; i < 32; ++i) {
      call(
          heads[used++], [](callback_head*) noexcept {}, kBig, domain);
    }
  };
  for (const bool offline : {false, true}) {
    const std::uint64_t before = stats(domain).throttled;
    retire_too_much();
    EXPECT_EQ(stats(domain).throttled, before);  // here it may hold pointers
    offline ? reader.offline() : reader.quiescent();
    EXPECT_EQ(stats(domain).throttled, before + 1);
    if (!offline) reader.quiescent();
    EXPECT_EQ(stats(domain).throttled, before + 1);
  }
  EXPECT_FALSE(reader.is_online());
}

TEST(QuiescentReader, WithoutAWorkerRunsWhatItRetiredWhereItIsQuiescent) {
  rcu_domain domain;
  const detail::NoThreads none;
  quiescent_reader reader(domain);
  int deleted = 0;
  for (int i = 1; i <= 100; ++i) {
    rcu_retire(
        &deleted, [](int* count) { ++*count; }, domain);
    EXPECT_EQ(deleted, i - 1);
    reader.quiescent();
    ASSERT_EQ(deleted, i);
  }
}

TEST(QuiescentReader, GoesOnInAForkedChild) {
  rcu_domain domain;
  quiescent_reader reader(domain);
  const pid_t child = ::fork();
  if (child == 0) {
    reader.quiescent();
    reader.offline();
    rcu_synchronize(domain);
    reader.online();
    rcu_synchronize(domain);
    ::_exit(reader.is_online() ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(QuiescentReaderDeath, ASectionMustNotSpanItsBeginning) {
  rcu_domain domain;
  domain.lock();
  EXPECT_DEATH({ const quiescent_reader reader(domain); }, "");
  domain.unlock();
}

}  // namespace
}  // namespace tandem::rcu
