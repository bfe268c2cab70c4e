// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/stall.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/expedite.hpp"
#include "tandem/rcu/grace_period.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/stats.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::wait_until;

std::atomic<int> reports{0};
std::atomic<pid_t> reported_thread{0};
std::atomic<std::uint32_t> reported_nesting{0};
std::atomic<std::size_t> reported_frames{0};
std::vector<std::chrono::nanoseconds> reported_ages;
std::atomic<int> own_signals{0};

void collect(const stall_report& report) {
  reported_ages.push_back(report.age);
  if (!report.readers.empty()) {
    reported_thread = report.readers.front().thread;
    reported_nesting = report.readers.front().nesting;
    reported_frames = report.readers.front().stack.size();
  }
  ++reports;
}

class Stall : public testing::Test {
 protected:
  void SetUp() override {
    reports = 0;
    reported_ages.clear();
    own_signals = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { ++own_signals; };
    ASSERT_EQ(::sigaction(SIGURG, &action, nullptr), 0);
    options_.limit = 10ms;
    options_.expedited_limit = 5ms;
    options_.handler = collect;
    options_.signal = SIGURG;
    ASSERT_TRUE(set_stall_options(options_));
  }
  void TearDown() override { ASSERT_TRUE(set_stall_options({})); }
  stall_options options_;
};

TEST_F(Stall, IsReportedWithThreadNestingAndStackAgainAndAgainAndTheProgramGoesOn) {
  for (const bool expedited : {false, true}) {
    rcu_domain domain;
    reports = 0;
    reported_ages.clear();
    std::atomic<bool> inside{false};
    std::atomic<bool> leave{false};
    std::atomic<pid_t> thread{0};
    std::thread reader([&] {
      thread = ::gettid();
      const std::scoped_lock section(domain);
      const std::scoped_lock nested(domain);
      inside = true;
      wait_until(leave);
    });
    wait_until(inside);
    const gp_state state = get_state(domain);
    std::thread updater([&] {
      if (expedited) {
        cond_synchronize_expedited(state, domain);
      } else {
        cond_synchronize(state, domain);
      }
    });
    while (reports < 3) std::this_thread::yield();
    // A reader that gets no CPU for a while does not answer in time: then it does the next time.
    EXPECT_TRUE(detail::comes_true([] { return reported_frames > 0; }));
    leave = true;
    updater.join();
    reader.join();
    EXPECT_EQ(reported_thread, thread);
    EXPECT_EQ(reported_nesting, 2u);
    EXPECT_GE(reported_ages[1], reported_ages[0] * 2);
    EXPECT_GE(reported_ages[2], reported_ages[1] * 2);
    EXPECT_GE(stats(domain).stalls, 3u);
    EXPECT_TRUE(poll_state(state, domain));
  }
  EXPECT_EQ(own_signals, 0);
}

TEST_F(Stall, SignalsThatAreTheProgramsReachItsHandler) {
  ::raise(SIGURG);
  EXPECT_EQ(own_signals, 1);
  ::kill(::getpid(), SIGURG);
  EXPECT_EQ(own_signals, 2);
}

/// Of the calling thread: it does not answer when it is asked for its stack.
void block_signals() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
}

TEST_F(Stall, AReaderThatBlocksTheSignalIsReportedWithoutItsStack) {
  rcu_domain domain;
  std::atomic<bool> inside{false};
  std::atomic<bool> leave{false};
  std::thread reader([&] {
    block_signals();
    const std::scoped_lock section(domain);
    inside = true;
    wait_until(leave);
  });
  wait_until(inside);
  std::thread updater([&] { rcu_synchronize(domain); });
  while (reports < 1) std::this_thread::yield();
  EXPECT_EQ(reported_frames, 0u);
  leave = true;
  updater.join();
  reader.join();
}

TEST_F(Stall, AThreadThatIsCancelledWhileItReportsGoesOnToTheEndOfItsWait) {
  options_.handler = [](const stall_report&) {
    ::pthread_testcancel();
    ++reports;
  };
  ASSERT_TRUE(set_stall_options(options_));
  rcu_domain domain;
  detail::Occupant occupant(domain);
  std::atomic<bool> cancelled{false};
  std::atomic<bool> waited{false};
  std::thread updater([&] {
    wait_until(cancelled);
    rcu_synchronize(domain);
    waited = true;
    ::pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
  });
  ::pthread_cancel(updater.native_handle());
  cancelled = true;
  while (reports < 1) std::this_thread::yield();
  occupant.leave();
  updater.join();
  EXPECT_TRUE(waited);
}

// One that asks for stacks when another thread forks is not there to finish.
TEST_F(Stall, AChildReportsItsOwnAlthoughTheParentWasAtIt) {
  if (detail::kInstrumented) GTEST_SKIP() << "ThreadSanitizer: no threads in the child";
  rcu_domain domain;
  std::atomic<bool> asked{false};
  std::atomic<bool> leave{false};
  std::thread reader([&] {
    block_signals();
    const std::scoped_lock section(domain);
    sigset_t pending;
    do {
      ::sigpending(&pending);
    } while (::sigismember(&pending, SIGURG) == 0);
    asked = true;  // and is waited for
    wait_until(leave);
  });
  wait_until([&] { return stats(domain).readers == 1; });
  std::thread updater([&] { rcu_synchronize(domain); });
  wait_until(asked);
  EXPECT_EQ(detail::in_child([&] {
              detail::Occupant occupant(domain);
              reports = 0;
              const detail::Waiter waiter([&] { rcu_synchronize(domain); });
              while (reports < 1) std::this_thread::yield();
              if (!set_stall_options(options_)) return 1;
              occupant.leave();
              waiter.wait();
              return 0;
            }),
            0);
  leave = true;
  updater.join();
  reader.join();
}

static_assert(stall_options().limit == 21s && stall_options().expedited_limit == 20ms);

TEST(StallOptions, AreChecked) {
  stall_options options;
  options.limit = {};
  EXPECT_FALSE(set_stall_options(options));
  options = {};
  options.expedited_limit = -1ns;
  EXPECT_FALSE(set_stall_options(options));
  options = {};
  options.signal = SIGKILL;
  EXPECT_FALSE(set_stall_options(options));
  options.signal = 1000;
  EXPECT_FALSE(set_stall_options(options));
}

}  // namespace
}  // namespace tandem::rcu
