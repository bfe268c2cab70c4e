// SPDX-License-Identifier: Apache-2.0
// Grace periods of sleepable domains.
//
// Each CPU has, for both indices, a count of locks and one of unlocks; they only grow. An index is
// drained when, added up over the CPUs, its unlocks are as many as its locks. A grace period makes
// one heavy fence (F) and is over when each index has been found drained once after it. If the
// index in use is not, the other one is waited for, then new sections are turned to it (the flip),
// then the old one is waited for.
//
// Why it is never over early. Take a section, on index i, that may hold what the caller has
// unpublished. Then its loads do not all come after (F), hence (A) its count of the lock is visible
// to everybody after (F), whatever happened between its load of the index and that count: also a
// thread that was preempted there through two flips counts in one of the two indices, and both
// are looked at. So every sum of locks of i that begins after (F) has that lock. Suppose the sums
// of i came out equal. drained() adds the unlocks up first, with acquire, then the locks. An unlock
// that it counted was released (C) by a thread that had counted the lock before, on this CPU
// or, before it migrated, on another: so that lock is in the second sum. Hence each counted unlock
// has its counted lock, the sum of locks is never less than that of unlocks, and if they are equal
// each counted lock has its counted unlock: ours, too. The section was over, and with (C) all that
// it did happened before. In the other order of the sums, a section that comes and goes between
// them adds an unlock without a lock, which passes for that of a reader who is still there.
//
// A thread's counts on one CPU are ordered with those of the thread that ran there before by the
// kernel's switch between them, as its own are when it migrates. That is why the value of
// a counter which one thread released stands for those that others added before.
//
// Why one fence is enough. What the kernel's algorithm orders by a fence between the sums is
// ordered here by release and acquire. And a section whose lock is not visible after (F) began
// after it: its loads find what the caller published, and it need not be waited for.
//
// Why it ends. New sections use the index in use. Once the other one is drained it gains only
// those that loaded the index before the flip: at most one for each thread, which then loads the
// new value. So each wait is for a bounded number of sections that all have begun.
//
// Why named grace periods are not too early. get_state() adds 0 to `started_`; whoever then
// advances it reads from that addition or a later one, so that what the caller unpublished happened
// before the (F) that follows.
#include "tandem/rcu/srcu.hpp"

#include <algorithm>
#include <climits>

#include "tandem/base/check.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/rcu/detail/caller_state.hpp"
#include "tandem/rcu/detail/process.hpp"

namespace tandem::rcu {
namespace {

using std::chrono::milliseconds;

constexpr int kSpins = 64;             // looks with a pause between them, about 10 µs
constexpr int kExpeditedSpins = 2048;  // about 300 µs
constexpr int kPauses = 8;             // in one pause
constexpr int kPollSteps = 4;          // of a poll that carries a grace period on

/// Sleeps are bounded: a section that ends wakes us, but where readers fence for themselves they do
/// not fence in unlock(), where (D) would cost as much again, and the wake-up may be lost.
constexpr milliseconds kFirstSleep{1};
constexpr milliseconds kLongestSleep{100};

}  // namespace

bool srcu_domain::drained(unsigned index) const noexcept {
  std::uint64_t unlocks = 0;
  std::uint64_t locks = 0;
  const auto add_locks = [&] {
    for (std::uint32_t slot = 0; slot <= cpus_; ++slot) {
      locks += slots_[slot].locks[index].load(std::memory_order_acquire);
    }
  };
  const bool wrong_order = planted_fault("rcu-srcu-sum-order");
  if (wrong_order) add_locks();
  for (std::uint32_t slot = 0; slot <= cpus_; ++slot) {
    unlocks += slots_[slot].unlocks[index].load(std::memory_order_acquire);  // (C)
  }
  if (!wrong_order) add_locks();
  return unlocks == locks;
}

/// Begins a grace period or looks at the one under way. Returns: whether it is over. Never waits.
bool srcu_domain::step() noexcept {
  if (!under_way_) {
    number_ = started_.fetch_add(1, std::memory_order_acq_rel) + 1;
    under_way_ = true;
    flipped_ = false;
    drained_ = 0;
    detail::grace_period_fence();  // (F)
  }
  const std::uint32_t index = index_.load(std::memory_order_relaxed);
  const std::uint32_t other = 1 - index;
  if (planted_fault("rcu-srcu-one-index")) drained_ |= 1u << other;
  for (const std::uint32_t i : {other, index}) {
    if ((drained_ >> i & 1) == 0 && drained(i)) drained_ |= 1u << i;
  }
  if (drained_ == 3) {
    under_way_ = false;
    completed_.store(number_, std::memory_order_release);
    return true;
  }
  if (!flipped_ && drained_ == 1u << other && !planted_fault("rcu-srcu-skip-flip")) {
    index_.store(other, std::memory_order_relaxed);
    flipped_ = true;
  }
  return false;
}

void srcu_domain::run_grace_period(int spins) noexcept {
  milliseconds limit = kFirstSleep;
  for (int round = 0; !step(); ++round) {
    if (round < spins) {
      for (int i = 0; i < kPauses; ++i) cpu_pause();
    } else if (sleep_for_readers(limit)) {
      break;
    } else if (detail::light_readers.load(std::memory_order_relaxed) && !detail::kInstrumented) {
      limit = std::min(2 * limit, kLongestSleep);
    }
  }
  for (auto& wake : wake_) {
    if (wake.load(std::memory_order_relaxed) != 0) wake.store(0, std::memory_order_relaxed);
  }
}

/// Ordering: `wake_` is stored before (F) and the counters are loaded after it; a reader counts
///           before (D) and loads `wake_` after it. So either we see that it left, or it sees that
///           we wait, and changes `moved_` after we have read it.
/// Returns:  whether the grace period is over.
bool srcu_domain::sleep_for_readers(milliseconds limit) noexcept {
  const std::uint32_t seen = moved_.load(std::memory_order_acquire);
  for (unsigned index = 0; index < 2; ++index) {
    if ((drained_ >> index & 1) == 0) wake_[index].store(1, std::memory_order_relaxed);
  }
  detail::grace_period_fence();  // (F)
  if (step()) return true;
  futex_wait(moved_, seen, limit);
  return false;
}

/// Ordering: (H) the count of releases and the load of `waiters_` are seq_cst, as is the addition
///           to `waiters_` before the kernel compares the count: one of the two sees the other.
void srcu_domain::release_grace() noexcept {
  grace_.unlock();
  released_.fetch_add(1, std::memory_order_seq_cst);                                  // (H)
  if (waiters_.load(std::memory_order_seq_cst) != 0) futex_wake(released_, INT_MAX);  // (H)
}

void srcu_domain::wait_for(std::uint64_t number, int spins) noexcept {
  while (completed_.load(std::memory_order_acquire) < number) {
    const std::uint32_t seen = released_.load(std::memory_order_seq_cst);
    if (grace_.try_lock()) {
      if (completed_.load(std::memory_order_acquire) < number) run_grace_period(spins);
      release_grace();
      continue;
    }
    waiters_.fetch_add(1, std::memory_order_seq_cst);  // (H)
    futex_wait(released_, seen, kLongestSleep);
    waiters_.fetch_sub(1, std::memory_order_relaxed);
  }
}

void srcu_domain::synchronize() noexcept {
  TANDEM_CHECK(sections_here() == 0);  // would wait for itself
  refresh();
  wait_for(get_state().value, kSpins);
}

void srcu_domain::synchronize_expedited() noexcept {
  TANDEM_CHECK(sections_here() == 0);
  refresh();
  wait_for(get_state().value, kExpeditedSpins);
}

void srcu_domain::cond_synchronize(gp_state state) noexcept {
  TANDEM_CHECK(sections_here() == 0);
  refresh();
  wait_for(state.value, kSpins);
}

void srcu_domain::cond_synchronize_expedited(gp_state state) noexcept {
  TANDEM_CHECK(sections_here() == 0);
  refresh();
  wait_for(state.value, kExpeditedSpins);
}

/// Ordering: (I) the request and the exchange of `poll_queued_` are seq_cst, as are the worker's
///           store of `poll_queued_` and its load of the request: either it sees the request or we
///           find it done and queue it again.
gp_state srcu_domain::start_poll() noexcept {
  const gp_state state = get_state();
  std::uint64_t seen = requested_.load(std::memory_order_relaxed);
  while (seen < state.value &&
         !requested_.compare_exchange_weak(seen, state.value, std::memory_order_seq_cst)) {  // (I)
  }
  if (callbacks_.running()) queue_poll();
  return state;
}

/// Has the worker wait for a grace period, which every callback does, and see whether that was
/// enough.
void srcu_domain::queue_poll() noexcept {
  if (poll_queued_.exchange(true, std::memory_order_seq_cst)) return;  // (I)
  const detail::KeepErrno keep;
  callbacks_.push(poll_head_, /*may_sleep=*/false);
}

bool srcu_domain::poll_slowly(std::uint64_t number) noexcept {
  if (requested_.load(std::memory_order_relaxed) < number || callbacks_.running()) return false;
  const std::uint64_t generation = detail::process.generation.load(std::memory_order_acquire);
  const bool entered = generation != detail::kWiped && generation != detail::kEntering;
  if (!entered || !try_refresh(generation) || !grace_.try_lock()) return false;
  const detail::KeepErrno keep;
  bool over = false;
  for (int i = 0; i < kPollSteps && !over; ++i) {
    over = completed_.load(std::memory_order_relaxed) >= number ||
           (step() && completed_.load(std::memory_order_relaxed) >= number);
  }
  release_grace();
  return over;
}

void srcu_domain::call(callback_head& head, void (*run)(callback_head*) noexcept) noexcept {
  refresh();
  head.run = run;
  callbacks_.push(head, /*may_sleep=*/sections_here() == 0);
}

void srcu_domain::barrier() noexcept {
  TANDEM_CHECK(sections_here() == 0);  // would wait for itself
  refresh();
  callbacks_.barrier();
}

bool srcu_domain::start_worker() noexcept {
  refresh();
  if (!callbacks_.start()) return false;
  if (requested_.load(std::memory_order_seq_cst) > completed_.load(std::memory_order_acquire)) {
    queue_poll();
  }
  return true;
}

std::uint64_t srcu_domain::reader_count() const noexcept {
  std::uint64_t unlocks = 0;
  std::uint64_t locks = 0;
  for (std::uint32_t slot = 0; slot <= cpus_; ++slot) {
    for (const auto& count : slots_[slot].unlocks) unlocks += count.load(std::memory_order_acquire);
  }
  for (std::uint32_t slot = 0; slot <= cpus_; ++slot) {
    for (const auto& count : slots_[slot].locks) locks += count.load(std::memory_order_acquire);
  }
  return locks - unlocks;
}

}  // namespace tandem::rcu
