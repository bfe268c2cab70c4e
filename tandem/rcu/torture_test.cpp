// SPDX-License-Identifier: Apache-2.0
// What a torture found, reduced; and one test for each fault that needs a certain interleaving.
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
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

/// Runs `body` where its never returning fails the test. ThreadSanitizer starts no thread in a
/// child.
int watched(unsigned seconds, const std::function<int()>& body) {
  if (detail::kInstrumented) return body();
  return detail::in_child([&] {
    ::alarm(seconds);
    return body();
  });
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

TEST(RcuBarrier, InADeleterWaitsForNoSectionThatBeganAfterTheRetires) {
  const int result = watched(20, [] {
    rcu_domain domain;
    std::atomic<bool> running{false};
    std::atomic<bool> inside{false};
    std::atomic<bool> both{false};
    std::atomic<bool> second{false};
    int object = 0;
    rcu_retire(
        &object,
        [&](int*) {
          running = true;
          wait_until(inside);
          rcu_barrier(domain);
          both = second.load();
        },
        domain);
    wait_until(running);
    rcu_retire(
        &object, [&](int*) { second = true; }, domain);
    const std::scoped_lock section(domain);
    inside = true;
    rcu_barrier(domain);
    return both ? 0 : 1;
  });
  EXPECT_EQ(result, 0);
}

/// As before, but the deleter is in a section itself, and what it waits for is held by a third one,
/// older than both.
TEST(RcuBarrier, InADeletersSectionWaitsForTheOldestSectionOnly) {
  const int result = watched(20, [] {
    rcu_domain domain;
    std::atomic<bool> running{false};
    std::atomic<bool> inside{false};
    std::atomic<bool> both{false};
    std::atomic<bool> second{false};
    int object = 0;
    rcu_retire(
        &object,
        [&](int*) {
          running = true;
          wait_until(inside);
          const std::scoped_lock youngest(domain);
          rcu_barrier(domain);
          both = second.load();
        },
        domain);
    wait_until(running);
    detail::Occupant oldest(domain);
    rcu_retire(
        &object, [&](int*) { second = true; }, domain);
    std::thread leaver;
    {
      const std::scoped_lock section(domain);
      (void)detail::DomainAccess::stamp(domain);  // the sections have states of their own
      inside = true;
      leaver = std::thread([&] {
        std::this_thread::sleep_for(10ms);
        oldest.leave();
      });
      rcu_barrier(domain);
    }
    leaver.join();
    return both ? 0 : 1;
  });
  EXPECT_EQ(result, 0);
}

/// The test that has to notice the planted fault "rcu-barrier-leaves-a-queue".
///
/// Two deleters in barriers, on two threads, each with the other's queue still to come. What is
/// pushed meanwhile is not waited for by who has the queue, but is by the other.
TEST(RcuBarrier, TwoDeletersInBarriersServeEachOther) {
  const auto round = [] {
    rcu_domain domain;
    std::atomic<bool> running{false};
    std::atomic<bool> go_on{false};
    std::atomic<bool> returned{false};
    std::atomic<bool> last{false};
    std::atomic<bool> early{false};
    int object = 0;
    rcu_retire(
        &object,
        [&](int*) {  // on the domain's thread
          running = true;
          wait_until(go_on);
          rcu_barrier(domain);
          early = !last;
        },
        domain);
    wait_until(running);
    rcu_retire(
        &object, [](int*) {}, domain);
    std::thread other([&] {
      rcu_retire(
          &object,
          [&](int*) {  // on this thread
            rcu_barrier(domain);
            returned = true;
          },
          domain);
      rcu_retire(
          &object,
          [&](int*) {  // in the barrier of the one before
            rcu_retire(
                &object, [&](int*) { last = true; }, domain);
            go_on = true;
          },
          domain);
      while (!returned) {
        rcu_synchronize(domain);
        (void)run_callbacks(domain);
      }
    });
    other.join();
    rcu_barrier(domain);
    return early.load();
  };
  const int result = watched(30, [&] {
    int early = 0;
    for (int i = 0; i < 20 && early == 0; ++i) early += round() ? 1 : 0;
    return early;
  });
  EXPECT_EQ(result, 0);
}

TEST(RcuBarrier, ADeleterThatItRunsInADeleterMayFork) {
  rcu_domain domain;
  const pid_t parent = ::getpid();
  std::atomic<bool> inside{false};
  std::atomic<pid_t> child{0};
  int object = 0;
  {
    const std::scoped_lock section(domain);  // they become ready together
    rcu_retire(
        &object,
        [&](int*) {
          rcu_barrier(domain);
          if (::getpid() != parent) ::_exit(inside ? 0 : 1);
        },
        domain);
    rcu_retire(
        &object,
        [&](int*) {
          inside = true;
          child = ::fork();
        },
        domain);
  }
  rcu_barrier(domain);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

/// Deleters call barrier on several threads, and others retire all the while: each such thread
/// holds a queue that the others wait for. Every barrier looks whether what it has to wait for has
/// run.
TEST(RcuStress, DeletersInBarriersOnSeveralThreadsServeEachOther) {
  const int result = watched(60, [] {
    constexpr std::size_t kRetirers = 3;
    constexpr std::size_t kObjects = detail::kInstrumented ? 10'000 : 100'000;
    constexpr std::size_t kAtOnce = 1'000;  // of one thread: a barrier in a barrier takes stack
    constexpr std::size_t kLook = 300;
    struct Retirer {
      std::vector<std::atomic<bool>> has_run = std::vector<std::atomic<bool>>(kObjects);
      std::atomic<std::size_t> retired{0};
      std::atomic<std::size_t> done{0};
    };
    std::array<Retirer, kRetirers> retirers;
    rcu_domain domain;
    std::atomic<std::uint64_t> early{0};
    std::atomic<bool> stop{false};
    const auto barrier_with_a_look = [&] {
      std::array<std::size_t, kRetirers> before{};
      for (std::size_t i = 0; i < kRetirers; ++i) before[i] = retirers[i].retired;
      rcu_barrier(domain);
      for (std::size_t i = 0; i < kRetirers; ++i) {
        for (std::size_t k = before[i] - std::min(before[i], kLook); k < before[i]; ++k) {
          early += retirers[i].has_run[k] ? 0 : 1;
        }
      }
    };
    struct Unstamped : callback_head {
      std::atomic<bool>* flag = nullptr;
    };
    std::vector<std::thread> threads;
    for (Retirer& retirer : retirers) {
      threads.emplace_back([&] {
        for (std::size_t k = 0; k < kObjects; ++k) {
          wait_until([&] { return k - retirer.done < kAtOnce; });
          std::atomic<bool>& flag = retirer.has_run[k];
          if (k % 8 == 1) {
            rcu_retire(
                &retirer,
                [&](Retirer* self) {
                  flag = true;  // waits for itself never
                  barrier_with_a_look();
                  ++self->done;
                },
                domain);
          } else if (k % 32 == 2) {
            auto* const object = new Unstamped;
            object->flag = &flag;
            call(
                *object,
                [](callback_head* head) noexcept {
                  const std::unique_ptr<Unstamped> self(static_cast<Unstamped*>(head));
                  *self->flag = true;
                },
                sizeof(Unstamped), domain);
            ++retirer.done;
          } else {
            rcu_retire(
                &retirer,
                [&flag](Retirer* self) {
                  flag = true;
                  ++self->done;
                },
                domain);
          }
          retirer.retired = k + 1;
        }
      });
    }
    for (int i = 0; i < 2; ++i) {
      threads.emplace_back([&] {
        while (!stop) rcu_barrier(domain);
      });
    }
    for (std::size_t i = 0; i < kRetirers; ++i) threads[i].join();
    stop = true;
    for (std::size_t i = kRetirers; i < threads.size(); ++i) threads[i].join();
    rcu_barrier(domain);
    return early == 0 ? 0 : 1;
  });
  EXPECT_EQ(result, 0);
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
