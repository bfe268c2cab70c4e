// SPDX-License-Identifier: Apache-2.0
// Reader kinds, polled and expedited grace periods.
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "tandem/rcu/call.hpp"
#include "tandem/rcu/detail/test_scheduling.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/expedite.hpp"
#include "tandem/rcu/grace_period.hpp"
#include "tandem/rcu/quiescent.hpp"
#include "tandem/rcu/srcu.hpp"
#include "tandem/rcu/stats.hpp"
#include "tandem/rcu/tasks.hpp"
#include "tandem/rcu/tasks_rude.hpp"
#include "tandem/rcu/tasks_trace.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::wait_until;
using detail::Waiter;

// ---- Quiescent-state readers ------------------------------------------------------------------

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

/// A worker that is busy with a deleter until this is gone.
class BusyWorker {
 public:
  explicit BusyWorker(rcu_domain& domain) : domain_(domain) {
    rcu_retire(
        this,
        [](BusyWorker* self) {
          self->busy_ = true;
          wait_until(self->leave_);
          self->left_ = true;
        },
        domain);
    wait_until(busy_);
  }
  ~BusyWorker() {
    leave_ = true;
    wait_until(left_);
    rcu_barrier(domain_);
  }
  BusyWorker(const BusyWorker&) = delete;
  BusyWorker& operator=(const BusyWorker&) = delete;

 private:
  rcu_domain& domain_;
  std::atomic<bool> busy_{false};
  std::atomic<bool> leave_{false};
  std::atomic<bool> left_{false};
};

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

// ---- Fences -----------------------------------------------------------------------------------

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

// ---- Polling ----------------------------------------------------------------------------------

TEST(Polling, EndsWithTheSectionsThatWereThere) {
  rcu_domain domain;
  for (const bool threads : {false, true}) {
    if (threads) {
      ASSERT_TRUE(prepare_polling(domain));
    }
    domain.lock();
    gp_state state;
    std::thread([&] { state = start_poll(domain); }).join();
    std::this_thread::sleep_for(5ms);
    EXPECT_FALSE(poll_state(state, domain));
    domain.unlock();
    while (!poll_state(state, domain)) std::this_thread::yield();
    EXPECT_TRUE(poll_state(state, domain)) << "once true it stays true";
  }
}

TEST(Polling, AGracePeriodThatBeganBeforeDoesNotCount) {
  rcu_domain domain;
  rcu_synchronize(domain);
  const gp_state state = get_state(domain);
  // No thread of the domain runs, and nobody drives: only poll_state() itself may.
  domain.lock();
  std::thread([&] { EXPECT_FALSE(poll_state(state, domain)); }).join();
  domain.unlock();
  rcu_synchronize(domain);
  EXPECT_TRUE(poll_state(state, domain));
}

TEST(Polling, CondSynchronizeWaitsOnlyIfItMust) {
  rcu_domain domain;
  const gp_state old = get_state(domain);
  rcu_synchronize(domain);
  domain.lock();
  cond_synchronize(old, domain);  // inside a section: has passed, so it is no deadlock
  cond_synchronize_expedited(old, domain);
  domain.unlock();
  const gp_state next = get_state(domain);
  std::atomic<bool> inside{false};
  std::atomic<bool> leave{false};
  std::thread reader([&] {
    const std::scoped_lock section(domain);
    inside = true;
    wait_until(leave);
  });
  wait_until(inside);
  const Waiter waiter([&] { cond_synchronize(next, domain); });
  EXPECT_FALSE(waiter.returned_within(20ms));
  leave = true;
  waiter.wait();
  reader.join();
}

TEST(Polling, TheDomainsThreadDrivesWhatWasStarted) {
  rcu_domain domain;
  ASSERT_TRUE(prepare_polling(domain));
  const std::uint64_t before = stats(domain).grace_periods;
  const gp_state state = start_poll(domain);
  while (stats(domain).grace_periods == before) std::this_thread::yield();
  while (!poll_state(state, domain)) std::this_thread::yield();
}

TEST(Polling, ADeleterInTheWorkersWayHoldsNothingUp) {
  rcu_domain domain;
  const BusyWorker worker(domain);
  const gp_state state = start_poll(domain);
  EXPECT_TRUE(poll_state(state, domain));
  {
    const detail::Occupant reader(domain);
    const gp_state next = start_poll(domain);
    EXPECT_FALSE(poll_state(next, domain));
  }
}

TEST(Polling, ADeleterMayPollUntilTheEnd) {
  rcu_domain domain;
  ASSERT_TRUE(prepare_polling(domain));
  static rcu_domain* polled;
  polled = &domain;
  for (const bool in_barrier : {false, true}) {
    std::atomic<bool> ended{false};
    rcu_retire(
        &ended,
        [](std::atomic<bool>* flag) {
          const gp_state state = start_poll(*polled);
          wait_until([&] { return poll_state(state, *polled); });
          *flag = true;
        },
        domain);
    if (in_barrier) rcu_barrier(domain);
    wait_until(ended);
  }
}

rcu_domain* signal_domain = nullptr;
std::atomic<int> handled{0};
std::atomic<int> passed{0};
gp_state handler_state;

void reads_and_polls(int) {
  {
    const std::scoped_lock section(*signal_domain);
    if (poll_state(handler_state, *signal_domain)) ++passed;
  }
  handler_state =
      handled % 2 == 0 ? start_poll(*signal_domain) : start_poll_expedited(*signal_domain);
  ++handled;
}

TEST(Polling, AndReadingWorkInSignalHandlers) {
  rcu_domain domain;
  signal_domain = &domain;
  handled = passed = 0;
  handler_state = get_state(domain);
  ASSERT_TRUE(prepare_polling(domain));
  { const std::scoped_lock section(domain); }
  struct sigaction action {};
  action.sa_handler = reads_and_polls;
  struct sigaction before {};
  ASSERT_EQ(::sigaction(SIGUSR1, &action, &before), 0);
  std::atomic<bool> stop{false};
  const pthread_t self = ::pthread_self();
  std::thread sender([&] {
    while (!stop) {
      ::pthread_kill(self, SIGUSR1);
      std::this_thread::sleep_for(50us);
    }
  });
  // The handler interrupts sections, grace periods and retires of this very thread.
  std::vector<callback_head> heads(256);
  const auto end = std::chrono::steady_clock::now() + 300ms;
  while (std::chrono::steady_clock::now() < end) {
    {
      const std::scoped_lock section(domain);
      const std::scoped_lock nested(domain);
      EXPECT_TRUE(domain.in_section());
    }
    EXPECT_FALSE(domain.in_section());
    rcu_synchronize(domain);
    for (callback_head& head : heads) {
      call(
          head, [](callback_head*) noexcept {}, sizeof head, domain);
    }
    rcu_barrier(domain);
  }
  stop = true;
  sender.join();
  ::sigaction(SIGUSR1, &before, nullptr);
  EXPECT_GT(handled, 10);
  EXPECT_GT(passed, 0);
}

// ---- Several domains, expedited ---------------------------------------------------------------

TEST(SynchronizeMult, WaitsForEachDomain) {
  rcu_domain one;
  rcu_domain two;
  for (rcu_domain* held : {&one, &two}) {
    held->lock();
    const Waiter waiter([&] { synchronize_mult(one, two, rcu_default_domain()); });
    EXPECT_FALSE(waiter.returned_within(20ms));
    held->unlock();
    waiter.wait();
  }
}

TEST(SynchronizeMult, TakesDomainsOfEveryKind) {
  rcu_domain plain;
  srcu_domain sleepable;
  tasks_domain tasks;
  tasks_rude_domain rude;
  tasks_trace_domain trace;
  const auto waits = [&](auto enter, auto leave) {
    std::atomic<int> stage{0};
    std::thread reader([&] {
      enter();
      stage = 1;
      wait_until([&] { return stage == 2; });
      leave();
    });
    wait_until([&] { return stage == 1; });
    const Waiter waiter([&] { synchronize_mult(tasks, plain, trace, sleepable, rude); });
    const bool waited = !waiter.returned_within(20ms);
    stage = 2;
    reader.join();
    return waited;
  };
  EXPECT_TRUE(waits([&] { plain.lock(); }, [&] { plain.unlock(); }));
  int token = 0;
  EXPECT_TRUE(waits([&] { token = sleepable.lock(); }, [&] { sleepable.unlock(token); }));
  std::optional<tasks_domain::task> task;
  EXPECT_TRUE(waits([&] { task.emplace(); }, [&] { task.reset(); }));
  std::optional<tasks_rude_domain::task> rude_task;
  EXPECT_TRUE(waits([&] { rude_task.emplace(); }, [&] { rude_task.reset(); }));
  EXPECT_TRUE(waits([&] { tasks_trace_lock(); }, [&] { tasks_trace_unlock(); }));
}

TEST(Expedited, WaitsForReadersAndForNothingElse) {
  rcu_domain domain;
  EXPECT_FALSE(set_expedited_priority(-1));
  EXPECT_FALSE(set_expedited_priority(1000));
  for (const int priority : {0, 1}) {
    ASSERT_TRUE(set_expedited_priority(priority));
    std::atomic<bool> inside{false};
    std::atomic<bool> leave{false};
    std::thread reader([&] {
      const std::scoped_lock section(domain);
      inside = true;
      wait_until(leave);
    });
    wait_until(inside);
    const Waiter ordinary([&] { rcu_synchronize(domain); });
    const Waiter waiter([&] { rcu_synchronize_expedited(domain); });
    EXPECT_FALSE(waiter.returned_within(20ms));
    leave = true;
    waiter.wait();
    ordinary.wait();
    reader.join();
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

TEST(Expedited, ReadersGetTheirPolicyBack) {
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
      const auto end = std::chrono::steady_clock::now() + 2s;
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

bool move_to(const cpu_set_t& cpus, int nice) {
  ::sched_setaffinity(0, sizeof cpus, &cpus);
  return ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), nice) == 0;
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
    move_to(shared, 19);
    const std::scoped_lock section(domain);
    reader_id = ::gettid();
    while (::sched_getscheduler(0) == SCHED_OTHER && !stop) {
    }
  });
  wait_until([&] { return reader_id != 0; });
  const long before = detail::switches_of(reader_id).losses;
  std::atomic<bool> favoured{false};
  std::atomic<bool> runs{false};
  std::thread rival([&] {
    favoured = move_to(shared, -20);
    for (runs = true; !stop;) {
    }
  });
  wait_until(runs);
  // Once the rival has taken the CPU from it, it will not have it back for long.
  wait_until([&] { return before < 0 || detail::switches_of(reader_id).losses > before; });
  bool returned = false;
  {
    const Waiter first([&] { rcu_synchronize_expedited(domain); });
    const Waiter second([&] { rcu_synchronize_expedited(domain); });
    returned = first.returned_within(2s) && second.returned_within(2s);
    stop = true;  // so that a reader that holds a lock comes to run
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

}  // namespace
}  // namespace tandem::rcu
