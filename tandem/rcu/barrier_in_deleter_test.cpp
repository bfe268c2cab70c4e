// SPDX-License-Identifier: Apache-2.0
// Deleters that call rcu_barrier(), on one thread and on several.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tandem/rcu/call.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::wait_until;
using detail::watched;

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
  const int result = watched(300, [] {
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

}  // namespace
}  // namespace tandem::rcu
