// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/expedite.hpp"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <thread>

#include "tandem/base/cpu.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/stats.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using detail::Occupant;
using detail::wait_until;
using detail::Waiter;

TEST(Expedited, WaitsForReadersAndForNothingElse) {
  rcu_domain domain;
  EXPECT_FALSE(set_expedited_priority(-1));
  EXPECT_FALSE(set_expedited_priority(1000));
  for (const int priority : {0, 1}) {
    ASSERT_TRUE(set_expedited_priority(priority));
    Occupant reader(domain);
    const Waiter ordinary([&] { rcu_synchronize(domain); });
    const Waiter waiter([&] { rcu_synchronize_expedited(domain); });
    EXPECT_FALSE(waiter.returned_within(20ms));
    reader.leave();
    waiter.wait();
    ordinary.wait();
  }
  const domain_stats now = stats(domain);
  EXPECT_EQ(now.expedited, 2u);
  ASSERT_TRUE(set_expedited_priority(1));
}

TEST(Expedited, CallersDriveThemselvesWhereNoThreadCanBeStarted) {
  for (int round = 0; round < 20; ++round) {
    rcu_domain domain;
    std::atomic<bool> go{false};
    detail::Occupant reader(domain);
    const auto wait = [&] {
      detail::wait_until(go);
      rcu_synchronize_expedited(domain);
    };
    const Waiter one(wait);
    const Waiter other(wait);
    {
      const detail::NoThreads none;
      go = true;
      EXPECT_FALSE(one.returned_within(5ms));
      EXPECT_FALSE(other.returned());
    }
    reader.leave();
    ASSERT_TRUE(one.returned_within(10s));
    ASSERT_TRUE(other.returned_within(10s));
  }
}

/// For the calling thread.
bool give_up_cap_sys_nice() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (::syscall(SYS_capget, &header, data) != 0) return false;
  data[0].effective &= ~(1U << CAP_SYS_NICE);
  data[0].permitted &= ~(1U << CAP_SYS_NICE);
  return ::syscall(SYS_capset, &header, data) == 0;
}

// The kernel lets only the privileged take SCHED_RESET_ON_FORK back, with which it was lent.
TEST(Expedited, AReaderWithoutPrivilegesGetsItsPolicyBack) {
  rcu_domain domain;
  int after = -1;
  std::atomic<bool> inside{false};
  std::thread reader([&] {
    const bool given_up = give_up_cap_sys_nice();
    {
      const std::scoped_lock section(domain);
      inside = true;
      const auto end = std::chrono::steady_clock::now() + 2s;
      while (stats(domain).boosts == 0 && std::chrono::steady_clock::now() < end) {
      }
    }
    if (given_up) after = ::sched_getscheduler(0) & ~SCHED_RESET_ON_FORK;
  });
  wait_until(inside);
  rcu_synchronize_expedited(domain);
  reader.join();
  if (stats(domain).boosts == 0) GTEST_SKIP() << "this process may not lend priorities";
  EXPECT_EQ(after, SCHED_OTHER);
}

/// Whether a thread of this process may have a priority that it can be lent.
bool priorities_may_be_lent() {
  bool may = false;
  std::thread([&] {
    const sched_param lowest{1};
    may = ::sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &lowest) == 0;
  }).join();
  return may;
}

TEST(Expedited, ReadersGetTheirPolicyBack) {
  if (!priorities_may_be_lent()) GTEST_SKIP() << "this process may not lend priorities";
  rcu_domain domain;
  std::atomic<int> seen_inside{-1};
  int after = -1;
  std::atomic<bool> inside{false};
  // The kernel sets the flag a moment before the policy.
  const auto policy = [] { return ::sched_getscheduler(0) & ~SCHED_RESET_ON_FORK; };
  std::thread reader([&] {
    {
      const std::scoped_lock section(domain);
      inside = true;
      const auto end = std::chrono::steady_clock::now() + 20s;
      while (policy() == SCHED_OTHER && std::chrono::steady_clock::now() < end) {
      }
      seen_inside = policy();
    }
    while (policy() != SCHED_OTHER) std::this_thread::yield();
    after = policy();
  });
  wait_until(inside);
  rcu_synchronize_expedited(domain);
  reader.join();
  if (stats(domain).boosts == 0) GTEST_SKIP() << "this process may not lend priorities";
  EXPECT_EQ(after, SCHED_OTHER);
  EXPECT_EQ(seen_inside, SCHED_FIFO);
}

bool set_nice(long thread, int nice) {
  return ::setpriority(PRIO_PROCESS, static_cast<id_t>(thread), nice) == 0;
}

/// Two expedited grace periods while the reader in their way shares its CPU with a thread that
/// leaves it no time but what is lent to it.
///
/// Returns: whether they ended; nothing if priorities cannot be set.
std::optional<bool> expedite_over_a_starved_reader(const cpu_set_t& shared) {
  rcu_domain domain;
  std::atomic<bool> stop{false};
  std::atomic<long> reader_id{0};
  std::thread reader([&] {
    const std::scoped_lock section(domain);
    ::sched_setaffinity(0, sizeof shared, &shared);
    reader_id = ::gettid();
    set_nice(reader_id, 19);
    while (::sched_getscheduler(0) == SCHED_OTHER && !stop) {
    }
  });
  wait_until([&] { return reader_id != 0; });
  std::atomic<bool> favoured{false};
  std::atomic<bool> runs{false};
  std::thread rival([&] {
    ::sched_setaffinity(0, sizeof shared, &shared);
    favoured = set_nice(::gettid(), -20);
    for (runs = true; !stop;) {
    }
  });
  wait_until(runs);  // on the CPU that the reader was on, which it will not have back for long
  // What counts is the time that the rival took from the reader: the whole machine may stand still.
  const auto rival_ran = [&] {
    clockid_t clock{};
    timespec time{};
    ::pthread_getcpuclockid(rival.native_handle(), &clock);
    ::clock_gettime(clock, &time);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  };
  bool returned = false;
  {
    const Waiter first([&] { rcu_synchronize_expedited(domain); });
    const Waiter second([&] { rcu_synchronize_expedited(domain); });
    const auto end = rival_ran() + 2s;
    while (!returned && rival_ran() < end) {
      std::this_thread::sleep_for(1ms);
      returned = first.returned() && second.returned();
    }
    stop = true;               // so that a reader that holds a lock comes to run
    set_nice(reader_id, -20);  // and its thread ends soon
  }
  reader.join();
  rival.join();
  if (!favoured || stats(domain).boosts == 0) return std::nullopt;
  return returned;
}

TEST(Expedited, AReaderThatGivesItsPriorityBackHoldsNobodyUp) {
  cpu_set_t all;
  ::sched_getaffinity(0, sizeof all, &all);
  if (CPU_COUNT(&all) < 2) GTEST_SKIP() << "needs two CPUs";
  unsigned cpu = 0;
  while (!CPU_ISSET(cpu, &all)) ++cpu;
  cpu_set_t shared;
  CPU_ZERO(&shared);
  CPU_SET(cpu, &shared);
  cpu_set_t others = all;
  CPU_CLR(cpu, &others);
  ::sched_setaffinity(0, sizeof others, &others);
  std::optional<bool> returned = true;
  for (int round = 0; round < 10 && returned.value_or(false); ++round) {
    returned = expedite_over_a_starved_reader(shared);
  }
  ::sched_setaffinity(0, sizeof all, &all);
  if (!returned) GTEST_SKIP() << "needs CAP_SYS_NICE";
  EXPECT_TRUE(*returned);
}

TEST(RcuExpedited, ReturnsAlsoWhenAnotherGracePeriodHasServedIt) {
  rcu_domain domain;
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> count{0};
  std::thread reader([&] {
    while (!stop) {
      const std::scoped_lock section(domain);
      for (int i = 0; i < 500; ++i) cpu_pause();
    }
  });
  std::thread plain([&] {
    while (!stop) rcu_synchronize(domain);
  });
  std::thread hasty([&] {
    for (; !stop; ++count) rcu_synchronize_expedited(domain);
  });
  bool hangs = false;
  for (int i = 0; i < 2 && !hangs; ++i) {
    const std::uint64_t before = count;
    const auto end = Clock::now() + 10s;
    std::this_thread::sleep_for(500ms);
    while (count == before && !hangs) {
      hangs = Clock::now() > end;
      std::this_thread::sleep_for(1ms);
    }
  }
  stop = true;
  rcu_synchronize_expedited(domain);  // its answer is one for the other as well
  hasty.join();
  plain.join();
  reader.join();
  EXPECT_FALSE(hangs);
}

}  // namespace
}  // namespace tandem::rcu
