// SPDX-License-Identifier: Apache-2.0
// A grace period that sleeps is woken whatever readers do meanwhile.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "rounds.hpp"
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

}  // namespace
}  // namespace tandem::rcu::detail
