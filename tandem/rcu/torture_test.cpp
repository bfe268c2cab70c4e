// SPDX-License-Identifier: Apache-2.0
// What a torture found, reduced; and one test for each fault that needs a certain interleaving.
#include <gtest/gtest.h>
#include <pthread.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tandem/base/cpu.hpp"
#include "tandem/rcu/call.hpp"
#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/expedite.hpp"
#include "tandem/rcu/grace_period.hpp"
#include "tandem/rcu/offload.hpp"
#include "tandem/rcu/quiescent.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using detail::wait_until;

std::atomic<rcu_domain*> handlers_domain{nullptr};

void enter_a_section(int) {
  rcu_domain& domain = *handlers_domain.load();
  const std::scoped_lock section(domain);
}

/// SIGUSR1 enters a section of `domain`.
void have_handler_enter(rcu_domain& domain) {
  handlers_domain.store(&domain);
  struct sigaction action {};
  action.sa_handler = enter_a_section;
  action.sa_flags = SA_RESTART;
  ASSERT_EQ(::sigaction(SIGUSR1, &action, nullptr), 0);
}

// ---- Signal handlers --------------------------------------------------------------------------

TEST(RcuSignals, AHandlerInAnotherDomainTakesNoReaderAway) {
  rcu_domain domain;
  rcu_domain other;
  have_handler_enter(other);
  std::atomic<bool> inside{false};
  std::atomic<bool> stop{false};
  std::uint64_t strays = 0;
  std::thread reader([&] {
    { const std::scoped_lock both(domain, other); }
    inside = true;
    while (!stop) {
      for (int i = 0; i < 100; ++i) {
        domain.lock();
        strays += domain.in_section() ? 0 : 1;
        domain.unlock();
      }
    }
  });
  wait_until([&] { return inside.load(); });
  const auto end = Clock::now() + 1s;
  while (Clock::now() < end) ::pthread_kill(reader.native_handle(), SIGUSR1);
  stop = true;
  reader.join();
  EXPECT_EQ(strays, 0U);
}

TEST(RcuSignals, AHandlerInAKnownDomainMayInterruptTheFirstSectionInAnother) {
  rcu_domain known;
  have_handler_enter(known);
  std::atomic<bool> inside{false};
  std::atomic<bool> stop{false};
  std::thread reader([&] {
    { const std::scoped_lock section(known); }
    inside = true;
    while (!stop) {
      std::array<rcu_domain, 10> fresh;
      for (rcu_domain& domain : fresh) const std::scoped_lock section(domain);
    }
  });
  wait_until([&] { return inside.load(); });
  const auto end = Clock::now() + 500ms;
  while (Clock::now() < end) {
    ::pthread_kill(reader.native_handle(), SIGUSR1);
    std::this_thread::sleep_for(10us);
  }
  stop = true;
  reader.join();
}

TEST(RcuSignals, AHandlerMayBeTheFirstInAPlainSection) {
  rcu_domain domain;
  have_handler_enter(domain);
  fenced_reader fenced(domain);
  { const std::scoped_lock section(fenced); }
  // As if the signal came amid a grace period of this thread.
  detail::Core& core = detail::DomainAccess::core(domain);
  const MutexLock lock(core.registry);
  EXPECT_EQ(::raise(SIGUSR1), 0);
}

// ---- Callbacks --------------------------------------------------------------------------------

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

/// The test that has to notice the planted fault "rcu-early-callback".
TEST(RcuCallbacks, AThreadThatRunsItsOwnRunsNoneThatAReaderHoldsUp) {
  rcu_domain domain;
  std::atomic<bool> inside{false};
  std::atomic<bool> leave{false};
  std::thread reader([&] {
    const std::scoped_lock section(domain);
    inside = true;
    wait_until([&] { return leave.load(); });
  });
  wait_until([&] { return inside.load(); });
  std::atomic<bool> deleted{false};
  rcu_retire(
      &deleted, [](std::atomic<bool>* flag) { *flag = true; }, domain);
  for (int i = 0; i < 100; ++i) (void)run_callbacks(domain);
  EXPECT_FALSE(deleted);
  leave = true;
  reader.join();
  rcu_barrier(domain);
  EXPECT_TRUE(deleted);
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

TEST(RcuBarrier, InADeleterWaitsForOneThatRunsWithinAnothersBarrier) {
  rcu_domain domain;
  std::atomic<bool> running{false};
  std::atomic<bool> go_on{false};
  std::atomic<bool> returned{false};
  std::atomic<bool> early{false};
  std::atomic<bool> asked{false};
  int object = 0;
  std::thread first([&] {
    rcu_retire(
        &object, [&](int*) { rcu_barrier(domain); }, domain);
    rcu_retire(
        &object,
        [&](int*) {  // runs in the barrier of the one before
          running = true;
          wait_until([&] { return go_on.load(); });
          returned = true;
        },
        domain);
    rcu_barrier(domain);
  });
  wait_until([&] { return running.load(); });
  std::thread second([&] {
    rcu_retire(
        &object,
        [&](int*) {
          std::thread helper([&] {
            std::this_thread::sleep_for(10ms);
            go_on = true;
          });
          rcu_barrier(domain);
          early = !returned;
          helper.join();
          asked = true;
        },
        domain);
    // The domain's worker may be where the first one is.
    while (!asked) {
      rcu_synchronize(domain);
      (void)run_callbacks(domain);
    }
  });
  second.join();
  first.join();
  EXPECT_FALSE(early);
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

TEST(Offload, GroupsThatAreSetUpAtOnceAreAllThere) {
  const auto group = [](std::initializer_list<unsigned> cpus) {
    offload_options options;
    CPU_ZERO(&options.cpus);
    for (const unsigned cpu : cpus) CPU_SET(cpu, &options.cpus);
    return options;
  };
  for (int round = 0; round < 50; ++round) {
    rcu_domain domain;
    std::atomic<int> ready{0};
    const auto set_up = [&](unsigned cpu) {
      ++ready;
      while (ready != 2) cpu_pause();
      EXPECT_TRUE(set_offload(group({cpu}), domain).has_value());
    };
    std::thread other([&] { set_up(0); });
    set_up(1);
    other.join();
    ASSERT_FALSE(set_offload(group({0, 2}), domain).has_value()) << "the group of CPU 0 is lost";
    ASSERT_FALSE(set_offload(group({1, 3}), domain).has_value()) << "the group of CPU 1 is lost";
  }
}

// ---- Grace periods ----------------------------------------------------------------------------

/// The test that has to notice the planted fault "rcu-completes-too-much".
TEST(RcuPolling, AGracePeriodServesNobodyWhoAsksAfterItsEnd) {
  rcu_domain domain;
  std::atomic<int> stage{0};
  std::thread reader([&] {
    wait_until([&] { return stage == 1; });
    const std::scoped_lock section(domain);
    stage = 2;
    wait_until([&] { return stage == 3; });
  });
  rcu_synchronize(domain);
  stage = 1;
  wait_until([&] { return stage == 2; });
  const gp_state state = get_state(domain);
  EXPECT_FALSE(poll_state(state, domain));
  stage = 3;
  reader.join();
  cond_synchronize(state, domain);
  EXPECT_TRUE(poll_state(state, domain));
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
  for (int i = 0; i < 4 && !hangs; ++i) {
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
