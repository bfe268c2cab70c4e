// SPDX-License-Identifier: Apache-2.0
// Polled grace periods and callbacks of sleepable domains: what their thread carries on.
#include <gtest/gtest.h>
#include <pthread.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/srcu.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::comes_true;
using Sleeper = detail::Occupant<srcu_domain, srcu_section>;

TEST(SrcuPoll, ANamedGracePeriodIsOverAfterSynchronizeAndNotBefore) {
  srcu_domain domain;
  const gp_state state = domain.get_state();
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(domain.poll_state(state));  // nobody started it
  domain.synchronize();
  EXPECT_TRUE(domain.poll_state(state));
  EXPECT_FALSE(domain.poll_state(domain.get_state()));
  domain.cond_synchronize(state);
  EXPECT_FALSE(domain.poll_state(domain.get_state()));  // needed no further one
  const gp_state next = domain.get_state();
  domain.cond_synchronize_expedited(next);
  EXPECT_TRUE(domain.poll_state(next));
}

TEST(SrcuPoll, AGracePeriodUnderWayIsNotNamed) {
  srcu_domain domain;
  Sleeper first(domain);
  const gp_state early = domain.start_poll();
  EXPECT_FALSE(domain.poll_state(early));  // begins it
  Sleeper second(domain);
  const gp_state late = domain.start_poll();
  first.leave();
  EXPECT_TRUE(comes_true([&] { return domain.poll_state(early); }));
  for (int i = 0; i < 1000; ++i) EXPECT_FALSE(domain.poll_state(late));
  second.leave();
  EXPECT_TRUE(comes_true([&] { return domain.poll_state(late); }));
}

TEST(SrcuPoll, WithAWorkerAStartedOneEndsWithoutAPoll) {
  srcu_domain domain;
  ASSERT_TRUE(domain.start_worker());
  for (int i = 0; i < 5; ++i) {
    const gp_state state = domain.start_poll();
    // Neither starts nor carries anything on.
    EXPECT_TRUE(comes_true([&] { return domain.get_state().value > state.value; }));
    EXPECT_TRUE(comes_true([&] { return domain.poll_state(state); }));
  }
}

TEST(SrcuPoll, AWorkerThatStartsLaterCarriesItOn) {
  srcu_domain domain;
  const gp_state state = domain.start_poll();
  ASSERT_TRUE(domain.start_worker());
  EXPECT_TRUE(comes_true([&] { return domain.get_state().value > state.value; }));
}

srcu_domain* handler_domain = nullptr;
std::atomic<std::uint64_t> handler_over{0};

void poll_in_handler(int) {
  static gp_state state;
  const int token = handler_domain->lock();
  handler_domain->unlock(token);
  if (state == gp_state{} || handler_domain->poll_state(state)) {
    state = handler_domain->start_poll();
    handler_over.fetch_add(1, std::memory_order_relaxed);
  }
}

// The handler interrupts sections, grace periods and polls of its own thread.
TEST(SrcuPoll, WorksInSignalHandlers) {
  for (const bool worker : {false, true}) {
    srcu_domain domain;
    srcu_domain other;
    if (worker) {
      ASSERT_TRUE(domain.start_worker());
    }
    handler_domain = &domain;
    handler_over = 0;
    std::optional<detail::Interrupted> interrupted;
    interrupted.emplace(poll_in_handler, 20us, SA_RESTART);
    EXPECT_TRUE(comes_true([&] {
      for (int i = 0; i < 100; ++i) {
        const srcu_section section(domain);
        const srcu_section further(other);
      }
      domain.synchronize();
      (void)domain.poll_state(domain.start_poll());
      return handler_over >= 50;
    }));
    interrupted.reset();
    EXPECT_EQ(domain.reader_count(), 0u);
    EXPECT_EQ(other.reader_count(), 0u);
    domain.synchronize();
  }
}

struct Counted : callback_head {
  std::atomic<int> ran{0};
  static void run_it(callback_head* head) noexcept { ++static_cast<Counted*>(head)->ran; }
};

TEST(SrcuCall, RunsTheCallbackAfterTheSectionAndNotBefore) {
  srcu_domain domain;
  Counted callback;
  Sleeper sleeper(domain);
  domain.call(callback, Counted::run_it);
  std::this_thread::sleep_for(5ms);
  EXPECT_EQ(callback.ran, 0);
  sleeper.leave();
  EXPECT_TRUE(comes_true([&] { return callback.ran == 1; }));
}

TEST(SrcuCall, BarrierWaitsForWhatWasCalledBefore) {
  srcu_domain domain;
  std::array<Counted, 100> callbacks;
  for (Counted& callback : callbacks) {
    const srcu_section section(domain);
    domain.call(callback, Counted::run_it);
  }
  domain.barrier();
  for (const Counted& callback : callbacks) EXPECT_EQ(callback.ran, 1);
}

TEST(SrcuCall, CallbacksMayUseTheDomain) {
  srcu_domain domain;
  struct Again : callback_head {
    srcu_domain* domain = nullptr;
    std::atomic<int> ran{0};
    static void run_it(callback_head* head) noexcept {
      auto& self = *static_cast<Again*>(head);
      { const srcu_section section(*self.domain); }
      self.domain->synchronize();
      self.domain->barrier();
      if (++self.ran < 3) self.domain->call(self, run_it);
    }
  } again;
  again.domain = &domain;
  domain.call(again, Again::run_it);
  for (int i = 0; i < 3; ++i) domain.barrier();
  EXPECT_EQ(again.ran, 3);
}

TEST(SrcuCall, TheDestructorRunsWhatIsRetired) {
  auto deleted = std::make_shared<std::atomic<int>>(0);
  {
    srcu_domain domain;
    for (int i = 0; i < 10; ++i) {
      domain.retire(new int(i), [deleted](int* object) {
        delete object;
        ++*deleted;
      });
    }
  }
  EXPECT_EQ(*deleted, 10);
}

}  // namespace
}  // namespace tandem::rcu
