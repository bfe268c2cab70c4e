// SPDX-License-Identifier: Apache-2.0
// Grace periods and workers that fall asleep are woken, whatever others do meanwhile.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>

#include "reader_kinds.hpp"
#include "rounds.hpp"
#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/rcu/call.hpp"
#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/process.hpp"

namespace tandem::rcu::detail {
namespace {

using namespace std::chrono_literals;

/// The rest of unlock() after the state store.
void leave(Reader& reader) {
  reader.state.store(0, kReaderOrder);
  light_fence();
  if (reader.wake.load(std::memory_order_relaxed) != 0) wake_waiters(reader);
}

/// The readers are played by this thread, so that one can stall where no real one can be made to:
/// between its load of the sequence and its store of the state. When it goes on it holds up a grace
/// period that has looked at it already. The model is tests/rcu_model/sleeper.pml, ALL_AT_ONCE.
TEST(RcuSleep, AReaderThatStalledOnItsWayInWakesTheGracePeriodThatItHoldsUp) {
  if (kInstrumented) GTEST_SKIP() << "ThreadSanitizer: every sleep is bounded";
  constexpr std::uint64_t kOld = 1;
  constexpr std::uint64_t kBound = 2;
  std::atomic<std::uint64_t> sequence{kBound};
  auto* const core = new Core(sequence, current_generation(), nullptr);
  Reader prompt;
  Reader stalled;
  for (Reader* reader : {&prompt, &stalled}) {
    reader->core = core;
    core->link(*reader);
  }
  Rendezvous start;
  std::atomic<std::uint64_t> returned{0};
  std::atomic<bool> stop{false};
  std::thread sleeper([&] {
    run_on_cpu(1);
    while (true) {
      start.meet();
      if (stop) return;
      while (core->oldest_reader(kBound) < kBound)
        core->sleep_for_readers(kBound, std::chrono::hours(1));
      returned.fetch_add(1);
    }
  });
  Delay delay(1);
  std::uint64_t lost = 0;
  constexpr std::uint64_t kRounds = 2'000;
  for (std::uint64_t round = 1; round <= kRounds && lost == 0; ++round) {
    prompt.state.store(kOld);
    start.meet();
    delay.up_to(1000);
    leave(prompt);
    stalled.state.store(kOld, kReaderOrder);
    delay.up_to(3000);
    leave(stalled);
    const auto deadline = std::chrono::steady_clock::now() + 10s;
    while (returned.load() != round && lost == 0) {
      if (std::chrono::steady_clock::now() > deadline) ++lost;
      std::this_thread::yield();
    }
    for (; returned.load() != round; std::this_thread::yield()) core->wake_all();
  }
  EXPECT_EQ(lost, 0U) << "a grace period slept on after its last reader had left";
  stop = true;
  start.meet();
  sleeper.join();
  for (Reader* reader : {&prompt, &stalled}) core->unlink(*reader);
  core->release();
}

/// How often a grace period fell asleep over a reader that left just then and did not see it.
///
/// In each round a reader enters a section and leaves it behind slow stores, while the other thread
/// sleeps for it. That shows without waiting: the sleeper has counted its sleep, and the reader is
/// out and has not moved it.
template <class Kind>
std::uint64_t lost_wakes() {
  constexpr std::uint64_t kSectionsPerRound = 500;  // 2000 rounds: the fault takes some ten
  rcu_domain domain;
  Core& core = DomainAccess::core(domain);
  Rendezvous start;
  std::atomic<std::uint64_t> bound{0};
  std::atomic<std::uint64_t> returned{0};
  std::atomic<bool> stop{false};
  std::uint64_t lost = 0;
  std::thread sleeper([&] {
    run_on_cpu(1);
    for (Delay delay(2);; returned.fetch_add(1)) {
      start.meet();
      if (stop) return;
      delay.up_to(20);
      while (core.oldest_reader(bound) < bound) {
        core.sleep_for_readers(bound, std::chrono::hours(1));
      }
    }
  });
  std::thread reading([&] {
    run_on_cpu(0);
    Kind reader(domain);
    Reader& self = DomainAccess::reader(domain);
    Delay delay(1);
    SlowStores slow;
    Budget budget(kSectionsPerRound);
    for (std::uint64_t round = 1; lost == 0 && budget.next(); ++round) {
      self.wake = 0;  // of a sleeper that found, at its second look, that it need not sleep
      reader.resume();
      reader.enter();
      bound = DomainAccess::stamp(domain);
      const std::uint32_t moved = core.moved;
      const std::uint64_t sleeps = core.counters.waits;
      slow.prepare();
      start.meet();
      delay.up_to(20);
      slow.make();
      reader.leave();
      while (returned != round) {
        if (lost == 0 && core.moved == moved && core.counters.waits != sleeps) ++lost;
        if (lost != 0) core.wake_all();
      }
      reader.rest();
    }
    stop = true;
    start.meet();
  });
  reading.join();
  sleeper.join();
  return lost;
}

template <class Kind>
class RcuWake : public ::testing::Test {};
TYPED_TEST_SUITE(RcuWake, ReaderKinds, ReaderKindNames);

/// The test that has to notice the planted fault "rcu-lost-wake". The model is
/// tests/rcu_model/sleeper.pml, WAKE_WITHOUT_FENCE.
TYPED_TEST(RcuWake, AReaderThatLeavesAsTheGracePeriodFallsAsleepWakesIt) {
  if (!register_process_fence()) GTEST_SKIP() << "no membarrier: every sleep is bounded instead";
  EXPECT_EQ(lost_wakes<TypeParam>(), 0U) << "and the grace period slept on";
}

/// Readers that make their own fences do not need the sleeper's.
template <class Kind>
class RcuWakeUnaided : public ::testing::Test {};
using ReadersWithOwnFences = ::testing::Types<QuiescentReader, OnlineReader>;
TYPED_TEST_SUITE(RcuWakeUnaided, ReadersWithOwnFences, ReaderKindNames);

/// The test that has to notice the planted fault "rcu-quiescent-without-fence". Runs itself once
/// more in a process without membarrier, whose interrupts would make the missing fence.
TYPED_TEST(RcuWakeUnaided, AReaderThatLeavesAsTheGracePeriodFallsAsleepWakesIt) {
  const char* const disabled = ::getenv("TANDEM_DISABLE");
  if (disabled != nullptr && std::string_view(disabled) == "membarrier") {
    ASSERT_FALSE(register_process_fence());
    EXPECT_EQ(lost_wakes<TypeParam>(), 0U) << "and the grace period slept on";
    return;
  }
  const ::testing::TestInfo& self = *::testing::UnitTest::GetInstance()->current_test_info();
  const std::string filter =
      std::string("--gtest_filter=") + self.test_suite_name() + "." + self.name();
  const pid_t child = ::fork();
  if (child == 0) {
    ::setenv("TANDEM_DISABLE", "membarrier", 1);
    ::execl("/proc/self/exe", "sleeper", filter.c_str(), nullptr);
    ::_exit(2);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

/// The test that has to notice the planted fault "rcu-sleeps-without-fence". The model is
/// tests/rcu_model/callbacks.pml, ASLEEP_WITHOUT_FENCE.
///
/// The worker falls asleep a moment after its only callback; just then the callback is pushed
/// again, behind slow stores.
TEST(RcuWorker, APushWakesAWorkerThatIsFallingAsleep) {
  constexpr std::uint64_t kSectionsPerRound = 250;  // 4000 rounds: the fault takes some hundred
  constexpr auto kLost = 5s;
  struct Object : callback_head {
    std::atomic<std::uint64_t> runs{0};
    SlowStores slow;
    Delay delay{2};
  } object;
  rcu_domain domain;
  bool lost = false;
  std::thread pusher([&] {  // not this thread, whose CPUs the worker takes over
    run_on_cpu(0);
    Budget budget(kSectionsPerRound);
    for (std::uint64_t number = 1; !lost && budget.next(); ++number) {
      object.slow.make();
      call(
          object,
          [](callback_head* head) noexcept {
            auto& self = *static_cast<Object*>(head);
            if (self.runs == 0) run_on_cpu(1);
            self.slow.prepare();
            self.runs.fetch_add(1, std::memory_order_release);
            self.delay.up_to(100);
          },
          sizeof(Object), domain);
      const auto deadline = std::chrono::steady_clock::now() + kLost;
      while (object.runs.load(std::memory_order_acquire) != number && !lost) {
        lost = std::chrono::steady_clock::now() > deadline;
      }
    }
  });
  pusher.join();
  EXPECT_FALSE(lost) << "the worker slept on";
  rcu_barrier(domain);
}

}  // namespace
}  // namespace tandem::rcu::detail
