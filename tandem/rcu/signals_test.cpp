// SPDX-License-Identifier: Apache-2.0
// Signal handlers that enter sections.
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <thread>

#include "tandem/base/mutex.hpp"
#include "tandem/base/test_sandbox.hpp"
#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/grace_period.hpp"
#include "tandem/rcu/quiescent.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/tasks_trace.hpp"

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
  const auto end = Clock::now() + 500ms;
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

// Neither a handler's section nor its poll may change it under the code that was interrupted.
TEST(RcuSignals, SectionsAndPollsLeaveErrnoAsItWas) {
  constexpr int kNoFilters = 77;
  const int result = detail::in_child([] {
    { const std::scoped_lock section(rcu_default_domain()); }
    if (!refuse_system_call(SYS_sched_setscheduler, EPERM)) return kNoFilters;
    if (!refuse_system_call(SYS_membarrier, EPERM)) return kNoFilters;
    errno = ENOENT;
    rcu_default_domain().lock();
    // As if a grace period in a hurry had lent this thread a priority.
    detail::default_reader.boosted = SCHED_OTHER + 1;
    detail::default_reader.wake = 1;
    rcu_default_domain().unlock();
    if (errno != ENOENT) return 1;
    (void)start_poll_expedited();
    if (errno != ENOENT) return 2;
    tasks_trace_lock();
    tasks_trace_unlock();
    return errno == ENOENT ? 0 : 3;
  });
  if (result == kNoFilters) GTEST_SKIP() << "no system-call filters";
  EXPECT_EQ(result, 0);
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

}  // namespace
}  // namespace tandem::rcu
