// SPDX-License-Identifier: Apache-2.0
// Expedited grace periods.
//
// Most end in the first look, on the caller's own thread. Where a reader is in the way, a thread of
// the domain takes over that runs at a real-time priority where the process may have one: it looks
// again at once when the reader has moved, however busy the CPUs are. A reader that was preempted
// inside its section keeps everybody waiting until it runs again; so after a moment the expediter
// lends it its own priority until the section ends.
#include "tandem/rcu/expedite.hpp"

#include <sched.h>

#include <cerrno>
#include <climits>

#include "tandem/base/cpu.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/process.hpp"
#include "tandem/rcu/stall.hpp"
#include "tandem/trace/trace.hpp"

namespace tandem::rcu::detail {
namespace {

constexpr int kSpins = 16;
constexpr int kPauses = 8;
constexpr std::chrono::microseconds kBoostAfter{100};
constexpr std::chrono::milliseconds kLook{1};  // between looks at a reader that sleeps

constinit std::atomic<int> expedited_priority{1};

}  // namespace

void Core::expedite(Reader* self) noexcept {
  Counters::add(counters.expedited);
  const std::uint64_t cookie = sequence.fetch_add(kStep, std::memory_order_acq_rel) + kStep;
  TANDEM_TRACE(rcu_grace_period, this, cookie);
  fence(self);  // (F)
  for (int round = 0; round < kSpins; ++round) {
    if (oldest_reader(cookie) >= cookie) {
      end_grace_period(cookie);
      announce();
      return;
    }
    for (int i = 0; i < kPauses; ++i) cpu_pause();
  }
  // Above the readers that it lends a priority to: it has to take it back.
  const int lent = expedited_priority.load(std::memory_order_relaxed);
  const bool driven = expediter.start(
      *this, "tandem-rcu-exp", [](void* core) { static_cast<Core*>(core)->expedite_main(); }, this,
      lent > 0 ? lent + 1 : 0);
  if (!driven) return await(cookie, self);
  std::uint64_t before = hasty.load(std::memory_order_relaxed);
  while (before < cookie &&
         !hasty.compare_exchange_weak(before, cookie, std::memory_order_acq_rel)) {
  }
  hasty_requests.fetch_add(1, std::memory_order_seq_cst);
  futex_wake(hasty_requests);
  for (;;) {
    const std::uint32_t seen = hasty_done.load(std::memory_order_acquire);
    if (completed_for(cookie)) return;
    futex_wait(hasty_done, seen);
  }
}

void Core::expedite_main() noexcept {
  while (!stop.load(std::memory_order_acquire)) {
    const std::uint32_t seen = hasty_requests.load(std::memory_order_acquire);
    const std::uint64_t bound = hasty.load(std::memory_order_acquire);
    if (completed_for(bound)) {
      // Who asked may sleep although another grace period has served it.
      hasty_done.fetch_add(1, std::memory_order_seq_cst);
      futex_wake(hasty_done, INT_MAX);
      futex_wait(hasty_requests, seen);
      continue;
    }
    const auto begin = Clock::now();
    Clock::duration next_report = stall_limit(true);
    unsigned reports = 0;
    bool boosted = false;
    fence(nullptr);  // (F)
    for (int round = 0; oldest_reader(bound) < bound; ++round) {
      if (round < kSpins) {
        for (int i = 0; i < kPauses; ++i) cpu_pause();
        continue;
      }
      const auto age = Clock::now() - begin;
      if (!boosted && age >= kBoostAfter) {
        boost_readers(bound);
        boosted = true;
      }
      if (age >= next_report) next_report = report_stall(bound, age, ++reports, true);
      sleep_for_readers(bound, boosted ? Clock::duration(kLook) : Clock::duration(kBoostAfter));
      if (boosted) unboost_readers(bound);
    }
    if (boosted) unboost_readers(bound);
    end_grace_period(bound);
    announce();
    hasty_done.fetch_add(1, std::memory_order_seq_cst);
    futex_wake(hasty_done, INT_MAX);
  }
  expediter.ended(*this);
}

/// Needs CAP_SYS_NICE or RLIMIT_RTPRIO, without which nothing happens.
void Core::boost_readers(std::uint64_t bound) noexcept {
  const int priority = expedited_priority.load(std::memory_order_relaxed);
  if (priority <= 0) return;
  const MutexLock lock(registry);
  for (Reader* reader = readers; reader; reader = reader->next) {
    const std::uint64_t state = reader->state.load(std::memory_order_relaxed);
    if (state == 0 || state >= bound) continue;
    if (reader->boosted.load(std::memory_order_relaxed) != 0) continue;
    const int policy = ::sched_getscheduler(reader->thread);
    const int kind = policy & ~SCHED_RESET_ON_FORK;
    if (kind != SCHED_OTHER && kind != SCHED_BATCH) continue;  // has a will of its own
    const sched_param parameter{priority};
    if (::sched_setscheduler(reader->thread, SCHED_FIFO | SCHED_RESET_ON_FORK, &parameter) != 0) {
      continue;
    }
    reader->boosted.store(policy + 1, std::memory_order_relaxed);
    reader->wake.store(1, std::memory_order_relaxed);  // so that it gives it back by itself
    Counters::add(counters.boosts);
  }
}

/// By the reader itself, or under the registry's lock, which keeps its thread alive. Without
/// CAP_SYS_NICE a thread cannot take SCHED_RESET_ON_FORK back; then it keeps that flag.
void Core::unboost(Reader& reader) noexcept {
  if (reader.boosted.load(std::memory_order_relaxed) == 0) return;
  const int policy = reader.boosted.exchange(0, std::memory_order_relaxed);
  if (policy == 0) return;
  const sched_param none{};
  if (::sched_setscheduler(reader.thread, policy - 1, &none) == 0) return;
  (void)::sched_setscheduler(reader.thread, (policy - 1) | SCHED_RESET_ON_FORK, &none);
}

void Core::unboost_readers(std::uint64_t bound) noexcept {
  const MutexLock lock(registry);
  for (Reader* reader = readers; reader; reader = reader->next) {
    const std::uint64_t state = reader->state.load(std::memory_order_acquire);
    if (state == 0 || state >= bound) unboost(*reader);
  }
}

}  // namespace tandem::rcu::detail

namespace tandem::rcu {

Result<void> set_expedited_priority(int priority) {
  if (priority < 0 || priority >= ::sched_get_priority_max(SCHED_FIFO)) return errno_error(EINVAL);
  detail::expedited_priority.store(priority, std::memory_order_relaxed);
  return {};
}

}  // namespace tandem::rcu
