// SPDX-License-Identifier: Apache-2.0
// A forked child's readers, retired objects and signal handlers.
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tandem/base/test_sandbox.hpp"
#include "tandem/rcu/detail/process.hpp"
#include "tandem/rcu/detail/test_canary.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/grace_period.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/srcu.hpp"
#include "tandem/rcu/stats.hpp"
#include "tandem/rcu/tasks_trace.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::in_child;
using detail::Occupant;
using detail::Updates;
using detail::wait_until;

/// What a hook of the program's does in the child, before the library's own.
void (*early_hook)() = nullptr;

__attribute__((constructor(101))) void set_early_hook() {
  ::pthread_atfork(nullptr, nullptr, [] {
    if (early_hook != nullptr) early_hook();
  });
}

// A signal handler may read in the child, whose first instruction it may follow: nothing is left to
// be registered or allocated there.
TEST(RcuFork, AChildsThreadIsRegisteredFromTheBeginning) {
  rcu_domain domain;
  for (rcu_domain* each : {&rcu_default_domain(), &domain}) {
    const std::scoped_lock section(*each);
  }
  const auto child = [&] {
    for (rcu_domain* each : {&rcu_default_domain(), &domain}) {
      if (stats(*each).readers != 1) return 1;
    }
    return 0;
  };
  EXPECT_EQ(in_child(child), 0);
  EXPECT_EQ(in_child([&] { return in_child(child); }), 0);
}

TEST(RcuFork, AChildDoesWithoutDomainsThatAreGone) {
  {
    rcu_domain domain;
    const std::scoped_lock section(domain);
  }
  EXPECT_EQ(in_child([] {
              rcu_synchronize();
              return 0;
            }),
            0);
}

TEST(RcuFork, AChildUsesEveryDomainAtOnce) {
  rcu_domain domain;
  Occupant occupant(rcu_default_domain());  // absent in the child: must hold nothing up there
  Occupant another(domain);
  const int result = in_child([&] {
    for (rcu_domain* each : {&rcu_default_domain(), &domain}) {
      { const std::scoped_lock section(*each); }
      rcu_synchronize(*each);
      int deleted = 0;
      rcu_retire(
          &deleted, [](int* count) { ++*count; }, *each);
      rcu_barrier(*each);
      if (deleted != 1) return 1;
    }
    return 0;
  });
  EXPECT_EQ(result, 0);
}

TEST(RcuFork, AGracePeriodThatWasOverIsSoInASectionOfTheChild) {
  rcu_domain domain;
  const gp_state over = get_state(domain);
  rcu_synchronize(domain);
  const std::scoped_lock section(domain);
  const gp_state later = start_poll(domain);
  rcu_retire(new int, {}, domain);  // advances what a new grace period would wait for
  EXPECT_EQ(in_child([&] {
              if (poll_state(later, domain)) return 1;
              return poll_state(over, domain) ? 0 : 2;
            }),
            0);
}

TEST(RcuFork, TheRetireThreadIsStartedAgainInTheChild) {
  std::atomic<bool> warm{false};
  rcu_retire(&warm, [](std::atomic<bool>* flag) { *flag = true; });
  wait_until([&] { return warm.load(); });
  const int result = in_child([] {
    std::atomic<bool> deleted{false};
    rcu_retire(&deleted, [](std::atomic<bool>* flag) { *flag = true; });
    wait_until([&] { return deleted.load(); });
    return 0;
  });
  EXPECT_EQ(result, 0);
}

TEST(RcuFork, WhatTheParentRetiredRunsInTheParentOnly) {
  rcu_domain domain;
  auto occupant = std::make_unique<Occupant<rcu_domain>>(domain);
  int deleted = 0;
  rcu_retire(
      &deleted, [](int* count) { ++*count; }, domain);
  const int result = in_child([&] {
    rcu_barrier(domain);
    return deleted;
  });
  EXPECT_EQ(result, 0);
  occupant->leave();
  rcu_barrier(domain);
  EXPECT_EQ(deleted, 1);
}

TEST(RcuFork, AnOpenSectionGoesOnInTheChild) {
  if (detail::kInstrumented) GTEST_SKIP() << "ThreadSanitizer: no threads in the child";
  for (const bool use_default : {true, false}) {
    rcu_domain further;
    rcu_domain& domain = use_default ? rcu_default_domain() : further;
    domain.lock();
    const int result = in_child([&] {
      std::atomic<bool> done{false};
      std::thread updater([&] {
        rcu_synchronize(domain);
        done = true;
      });
      std::this_thread::sleep_for(10ms);
      const bool early = done;
      domain.unlock();
      updater.join();
      return early ? 1 : 0;
    });
    domain.unlock();
    EXPECT_EQ(result, 0);
  }
}

TEST(RcuFork, AChildOfTheRawSystemCallIsNoticed) {
  if (detail::kInstrumented) {
    GTEST_SKIP() << "ThreadSanitizer takes the parent's threads for the child's";
  }
  rcu_domain& domain = rcu_default_domain();
  Occupant occupant(domain);
  { const std::scoped_lock section(domain); }
  const std::uint64_t parent = detail::current_generation();
  const auto child = static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
  if (child == 0) {
    { const std::scoped_lock section(domain); }
    rcu_synchronize(domain);
    ::_exit(detail::current_generation() != parent ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(RcuFork, ADeleterMayFork) {
  rcu_domain domain;
  pid_t child = -1;
  rcu_retire(
      &child,
      [&](pid_t* pid) {
        rcu_domain* const inherited = &domain;
        const pid_t result = ::fork();
        if (result == 0) {
          int deleted = 0;
          rcu_retire(
              &deleted, [](int* count) { ++*count; }, *inherited);
          rcu_barrier(*inherited);
          ::_exit(deleted == 1 ? 0 : 1);
        }
        *pid = result;
      },
      domain);
  rcu_barrier(domain);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(RcuFork, AForkAmidReadersUpdatersAndThreadsThatComeAndGoNeverHangs) {
  Updates updates;
  rcu_domain domain;
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    while (!updates.stop) updates.read(domain, 2);
  });
  threads.emplace_back([&] {
    int object = 0;
    while (!updates.stop) {
      for (int i = 0; i < 100; ++i)
        rcu_retire(
            &object, [](int*) {}, domain);
      rcu_barrier(domain);
    }
  });
  threads.emplace_back([&] {
    while (!updates.stop) rcu_synchronize(domain);
  });
  threads.emplace_back([&] {
    while (!updates.stop) std::thread([&] { updates.read(domain, 1); }).join();
  });
  // A fork may take a second: under AddressSanitizer, with all CPUs busy.
  const auto end = std::chrono::steady_clock::now() + 20s;
  int result = 0;
  for (int round = 0; result == 0 && round < 100 && std::chrono::steady_clock::now() < end;
       ++round) {
    result = in_child([&] {
      rcu_synchronize(domain);
      int deleted = 0;
      {
        const std::scoped_lock section(domain);
        rcu_retire(
            &deleted, [](int* count) { ++*count; }, domain);
      }
      rcu_barrier(domain);
      return deleted == 1 ? in_child([&] {  // and once more in a grandchild
        rcu_synchronize(domain);
        rcu_barrier(domain);
        return 0;
      })
                          : 1;
    });
    EXPECT_EQ(result, 0) << "round " << round;
  }
  updates.stop = true;
  for (auto& thread : threads) thread.join();
}

bool is_registered() {
  const std::uint64_t generation = detail::process.generation.load();
  return detail::default_reader.generation == generation &&
         detail::tasks_trace_entry.generation == generation;
}

sigset_t blocked_signals() {
  sigset_t signals;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &signals);
  return signals;
}

bool same_signals(const sigset_t& one, const sigset_t& other) {
  for (int signal = 1; signal < NSIG; ++signal) {
    if (::sigismember(&one, signal) != ::sigismember(&other, signal)) return false;
  }
  return true;
}

std::array<rcu_domain, 2>* handlers_domains = nullptr;
srcu_domain* handlers_srcu = nullptr;
volatile std::sig_atomic_t handled = 0;
volatile std::sig_atomic_t handled_unregistered = 0;

void read_everywhere(int) {
  handled = handled + 1;
  if (!is_registered()) handled_unregistered = handled_unregistered + 1;
  {
    const std::scoped_lock sections(rcu_default_domain(), (*handlers_domains)[0],
                                    (*handlers_domains)[1]);
  }
  { const srcu_section section(*handlers_srcu); }
  tasks_trace_lock();
  tasks_trace_unlock();
}

TEST(RcuFork, ASignalAmidForkIsHandledOnceTheChildsThreadIsRegistered) {
  if (detail::kInstrumented) GTEST_SKIP() << "ThreadSanitizer calls handlers later";
  std::array<rcu_domain, 2> domains;
  srcu_domain srcu;
  handlers_domains = &domains;
  handlers_srcu = &srcu;
  ASSERT_NE(std::signal(SIGUSR1, read_everywhere), SIG_ERR);
  read_everywhere(SIGUSR1);
  handled = 0;
  handled_unregistered = 0;
  const sigset_t before = blocked_signals();
  const srcu_section open(srcu);
  early_hook = [] { ::raise(SIGUSR1); };
  EXPECT_EQ(in_child([&] {
              early_hook = nullptr;
              if (handled != 1) return 1;
              if (handled_unregistered != 0) return 2;
              return same_signals(before, blocked_signals()) ? 0 : 3;
            }),
            0);
  early_hook = nullptr;
  EXPECT_TRUE(same_signals(before, blocked_signals()));
  EXPECT_EQ(handled, 0);
  ::raise(SIGUSR1);
  EXPECT_EQ(handled, 1);
  std::signal(SIGUSR1, SIG_DFL);
}

TEST(RcuFork, AForkThatFailsLeavesSignalsAsTheyWere) {
  constexpr int kNoFilters = 77;
  { const std::scoped_lock section(rcu_default_domain()); }
  const int result = in_child([] {
    const sigset_t before = blocked_signals();
    if (!refuse_system_call(SYS_clone, EAGAIN)) return kNoFilters;
    if (::fork() != -1 || errno != EAGAIN) return 1;
    return same_signals(before, blocked_signals()) ? 0 : 2;
  });
  if (result == kNoFilters) GTEST_SKIP() << "no system-call filters";
  EXPECT_EQ(result, 0);
}

bool hooks_object_deleted = false;

TEST(RcuFork, WhatTheProgramsOwnHookRetiresInTheChildIsNotLost) {
  { const std::scoped_lock section(rcu_default_domain()); }
  early_hook = [] { rcu_retire(&hooks_object_deleted, [](bool* deleted) { *deleted = true; }); };
  EXPECT_EQ(in_child([] {
              early_hook = nullptr;
              rcu_barrier();
              return hooks_object_deleted ? 0 : 1;
            }),
            0);
  early_hook = nullptr;
}

}  // namespace
}  // namespace tandem::rcu
