// SPDX-License-Identifier: Apache-2.0
// Readers, and the grace periods that wait for them.
#include "tandem/rcu/detail/core.hpp"

#include <unistd.h>

#include <algorithm>
#include <climits>

#include "tandem/base/cpu.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/rcu/detail/caller_state.hpp"
#include "tandem/rcu/detail/process.hpp"
#include "tandem/rcu/stall.hpp"
#include "tandem/trace/trace.hpp"

namespace tandem::rcu::detail {
namespace {

constexpr int kSpins = 64;  // scans with a pause between them, about 10 µs
constexpr int kPauses = 8;  // in one pause
/// Of Core::turn: whether somebody drives the grace period that others wait for, and its count.
constexpr std::uint32_t kDriven = 1;
constexpr std::uint32_t kTurn = 2;

}  // namespace

Core::Core(std::atomic<std::uint64_t>& domain_sequence, std::uint64_t process_generation,
           Core* parents)
    : sequence(domain_sequence), generation(process_generation), parent(parents) {
  // What was over stays over: a child has no sections but those that the forking thread had.
  if (parents != nullptr) completed.store(parents->completed.load(std::memory_order_acquire));
  for (Lane& lane : lanes) lane.core = this;
  last_resort.lane.store(&lanes[0], std::memory_order_relaxed);
  last_resort.owned = true;
  queues.store(&last_resort, std::memory_order_relaxed);
}

Core::~Core() {
  for (Queue* queue = queues.load(std::memory_order_relaxed); queue != nullptr;) {
    Queue* const next = queue->next;
    for (Chunk* chunk = queue->filling; chunk != nullptr;) {  // emptied: the last one is left
      Chunk* const after = chunk->next.load(std::memory_order_relaxed);
      delete chunk;
      chunk = after;
    }
    while (const Chunk* const spare = take_spare(*queue)) delete spare;
    if (queue != &last_resort) delete queue;
    queue = next;
  }
}

void Core::release() noexcept {
  if (references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

void Core::link(Reader& reader) noexcept {
  const MutexLock lock(registry);
  reader.thread = ::gettid();
  reader.previous = nullptr;
  reader.next = readers;
  if (readers) readers->previous = &reader;
  readers = &reader;
}

void Core::unlink(Reader& reader) noexcept {
  {
    const MutexLock lock(registry);
    (reader.previous ? reader.previous->next : readers) = reader.next;
    if (reader.next) reader.next->previous = reader.previous;
    if (reader.is_plain.exchange(false, std::memory_order_relaxed)) {
      plain_readers.fetch_sub(1, std::memory_order_relaxed);
    }
    if (reader.queue != &no_queue) reader.queue->owned = false;
    reader.queue = &no_queue;
  }
  wake_all();
  unboost(reader);
}

/// Ordering: (H) the count rises before the reader's first plain section, with a full fence in
///           between; pairs with the fence before fence() reads it. Either the grace period sees
///           the count, or the section sees what was updated before.
void Core::count_plain(Reader& reader) noexcept {
  // No lock: a signal handler may be the first to enter a plain section on its thread. It may also
  // interrupt us here, and must not find the reader marked and not counted.
  plain_readers.fetch_add(1, std::memory_order_seq_cst);
  if (reader.is_plain.exchange(true, std::memory_order_relaxed)) {
    plain_readers.fetch_sub(1, std::memory_order_relaxed);
  }
  full_fence();  // (H)
}

void Core::make_plain(Reader& reader) noexcept {
  if (reader.waits || !light_readers.load(std::memory_order_relaxed)) return;
  count_plain(reader);
  reader.plain.store(reader.generation, std::memory_order_relaxed);
}

/// While it lives, its thread waits outside sections and does not count as a plain reader: where
/// all plain readers wait for grace periods, nobody need be interrupted for those. A handler that
/// enters a section on this thread meanwhile makes a fence of its own.
///
/// Ordering: (H) what the thread did in sections happens before the count falls; it rises again
///           with a full fence before the next plain section, as for a reader that is new.
class Core::Waiting {
 public:
  Waiting(Core& core, Reader* self) noexcept
      : core_(core), reader_(core.counts(self) ? self : nullptr) {
    if (reader_ == nullptr) return;
    reader_->waits = true;
    reader_->plain.store(kDetached, std::memory_order_relaxed);
    light_fence();
    core_.plain_readers.fetch_sub(1, std::memory_order_seq_cst);  // (H)
  }
  ~Waiting() {
    if (reader_ == nullptr) return;
    if (!planted_fault("rcu-waiter-stays-uncounted")) {
      core_.plain_readers.fetch_add(1, std::memory_order_seq_cst);  // (H)
    }
    fence_after_rmw();
    reader_->waits = false;
    if (light_readers.load(std::memory_order_relaxed)) {
      reader_->plain.store(core_.generation, std::memory_order_relaxed);
    }
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  Core& core_;
  Reader* const reader_;
};

/// The kernel refuses the fence that plain readers rely on: from their next sections on they make
/// their own. They stay counted, since one of them may be entering a section as a plain one now.
void Core::make_nobody_plain() noexcept {
  if (!registry.try_lock()) return;  // in a handler, maybe; the next grace period tries again
  for (Reader* reader = readers; reader; reader = reader->next) {
    reader->plain.store(kDetached, std::memory_order_relaxed);
  }
  registry.unlock();
}

void Core::wake_all() noexcept {
  moved.fetch_add(1, std::memory_order_acq_rel);
  futex_wake(moved, INT_MAX);
}

void wake_waiters(Reader& reader) noexcept {
  const KeepErrno keep;
  if (thread_ends) return wake_waiters_and_leave(reader);
  // Cleared before `moved` changes: who sets it again has read the new value and waits on that.
  reader.wake.store(0, std::memory_order_release);
  reader.core->wake_all();
  // Last, and with no lock held: without the priority this thread may not run for a while.
  Core::unboost(reader);
}

std::uint64_t Core::oldest_reader_locked(std::uint64_t bound) const noexcept {
  std::uint64_t oldest = bound;
  for (const Reader* reader = readers; reader; reader = reader->next) {
    const std::uint64_t state = reader->state.load(std::memory_order_acquire);  // (C)
    if (state != 0) oldest = std::min(oldest, state);
  }
  return oldest;
}

std::uint64_t Core::oldest_reader(std::uint64_t bound) noexcept {
  const MutexLock lock(registry);
  return oldest_reader_locked(bound);
}

/// In a forked child the caller's reader may still be the parent's, and count there.
bool Core::counts(const Reader* self) const noexcept {
  return self != nullptr && self->generation == generation && !self->waits &&
         self->is_plain.load(std::memory_order_relaxed);
}

bool Core::has_plain_readers_besides(const Reader* self) const noexcept {
  return plain_readers.load(std::memory_order_seq_cst) > (counts(self) ? 1u : 0u);
}

/// Only plain readers leave their fence to us; where there is none but the caller's own, outside
/// its sections, a fence of our own does.
void Core::fence(const Reader* self) noexcept {
  full_fence();  // (H)
  if (has_plain_readers_besides(self)) {
    fence_others();
  } else {
    Counters::add(counters.fences_skipped);
  }
}

void Core::fence_others() noexcept {
  grace_period_fence();
  if (!light_readers.load(std::memory_order_relaxed)) make_nobody_plain();
}

/// Why one fence and one scan suffice.
///
/// The caller loaded `bound` from the sequence, or wrote it, after the update it guards, and then
/// made the fence (F). Take a reader's outermost section. Either its state store is visible to the
/// first scan after the fence (F), and we wait until the state is 0 or at least `bound`; both were
/// stored with release after the section's last access. Or it is not, and then everything that the
/// section loads after (A) comes after (F): it sees the update. A state of at least `bound` was
/// loaded with acquire (B) from a sequence advanced after the update: that section sees it, too.
bool Core::first_look(std::uint64_t bound) noexcept {
  return planted_fault("rcu-early-grace-period") || oldest_reader(bound) >= bound;
}

void Core::wait_for_readers(std::uint64_t bound) noexcept {
  if (first_look(bound)) return;
  const auto begin = Clock::now();
  auto next_report = stall_limit(false);
  unsigned reports = 0;
  for (int round = 0; oldest_reader(bound) < bound; ++round) {
    if (round < kSpins) {
      for (int i = 0; i < kPauses; ++i) cpu_pause();
    } else {  // a yield could give a slice to a thread that holds nobody up
      const auto age = Clock::now() - begin;
      if (age >= next_report) next_report = report_stall(bound, age, ++reports, false);
      sleep_for_readers(bound, next_report - age);
    }
  }
}

/// Sleeps for one reader that holds us up; it wakes us, and the caller looks for the next one. No
/// other reader is a reason to sleep: one that stalled between its load of the sequence and its
/// store of the state may come to hold us up only now, without having been told.
///
/// Ordering: `wake` is stored before (F) and the state is loaded after it; the reader stores its
///           state before (D) and loads `wake` after it. So either we see that it left, or it sees
///           that we wait, and changes `moved` after we have read it.
void Core::sleep_for_readers(std::uint64_t bound, Clock::duration at_most) noexcept {
  /// Where no fence can be made on a reader's thread its wake-up may be lost.
  constexpr std::chrono::milliseconds kLossySleep{1};
  const std::uint32_t seen = moved.load(std::memory_order_acquire);
  const auto blocks = [bound](const Reader& reader) {
    const std::uint64_t state = reader.state.load(std::memory_order_acquire);
    return state != 0 && state < bound;
  };
  const Reader* told = nullptr;
  {
    const MutexLock lock(registry);
    for (Reader* reader = readers; reader && !told; reader = reader->next) {
      if (!blocks(*reader)) continue;
      reader->wake.store(1, std::memory_order_relaxed);
      told = reader;
    }
  }
  if (!told) return;
  if (!planted_fault("rcu-lost-wake")) grace_period_fence();  // (F)
  {
    const MutexLock lock(registry);
    const Reader* reader = readers;
    while (reader && reader != told) reader = reader->next;
    if (!reader || !blocks(*reader)) return;
  }
  Counters::add(counters.waits);
  const bool lossy = kInstrumented || !light_readers.load(std::memory_order_relaxed);
  futex_wait(moved, seen, lossy ? std::min<Clock::duration>(at_most, kLossySleep) : at_most);
}

void Core::complete(std::uint64_t bound) noexcept {
  std::uint64_t before = completed.load(std::memory_order_relaxed);
  while (before < bound &&
         !completed.compare_exchange_weak(before, bound, std::memory_order_seq_cst,
                                          std::memory_order_relaxed)) {
  }
}

/// A value of the sequence that serves `cookie`, which may be a polled one that nobody has advanced
/// to.
std::uint64_t Core::bound_for(std::uint64_t cookie) noexcept {
  const std::uint64_t bound = sequence.load(std::memory_order_acquire);
  return bound >= cookie ? bound : sequence.fetch_add(kStep, std::memory_order_acq_rel) + kStep;
}

void Core::end_grace_period(std::uint64_t bound) noexcept {
  complete(planted_fault("rcu-completes-too-much") ? bound + kStep : bound);
  Counters::add(counters.grace_periods);
  TANDEM_TRACE(rcu_grace_period_end, this, bound);
}

bool Core::end_if_clear(std::uint64_t bound, bool fence_skipped) noexcept {
  {
    const MutexLock lock(registry);
    skipped += fence_skipped ? 1 : 0;
    if (!planted_fault("rcu-early-grace-period") && oldest_reader_locked(bound) < bound) {
      return false;
    }
    ++ended_at_once;
  }
  complete(planted_fault("rcu-completes-too-much") ? bound + kStep : bound);
  TANDEM_TRACE(rcu_grace_period_end, this, bound);
  return true;
}

/// Waits for the grace period of `cookie`. The caller has made a full fence after it loaded or
/// wrote `bound`, at least the cookie: where nobody plain reads, that is (F).
///
/// Who finds `completed` at or above its cookie was served: that grace period loaded its bound
/// after somebody advanced the sequence to the cookie, hence after our update, before it fenced and
/// scanned.
void Core::drive(std::uint64_t cookie, std::uint64_t bound, Reader* self) noexcept {
  TANDEM_TRACE(rcu_grace_period, this, bound);
  const bool fenced = !has_plain_readers_besides(self);  // (H)
  if (fenced && end_if_clear(bound, true)) {
    if (in_line.load(std::memory_order_seq_cst) != 0) announce();
    return;
  }
  drive_in_turn(cookie, bound, self, fenced);
}

/// A fence on other threads interrupts their CPUs, and the kernel makes one at a time, so it has to
/// serve as many callers as there are: one of them drives a grace period, the others sleep until it
/// has ended and then see whether it served them.
void Core::drive_in_turn(std::uint64_t cookie, std::uint64_t bound, Reader* self,
                         bool fenced) noexcept {
  const Waiting waiting(*this, self);
  for (bool first = true; !completed_for(cookie); first = false) {
    std::uint32_t seen = turn.load(std::memory_order_acquire);
    if ((seen & kDriven) == 0) {
      if (!turn.compare_exchange_strong(seen, seen | kDriven, std::memory_order_acquire)) continue;
      const bool looked = first && fenced;
      if (!first) {
        bound = bound_for(cookie);  // for all who came meanwhile
        full_fence();               // (H)
        fenced = !has_plain_readers_besides(nullptr);
      }
      if (!fenced) fence_others();  // (F)
      if (looked || !end_if_clear(bound, fenced)) {
        wait_for_readers(bound);
        end_grace_period(bound);
      }
      turn.fetch_add(kTurn - kDriven, std::memory_order_seq_cst);
      if (in_line.load(std::memory_order_seq_cst) != 0) futex_wake(turn, INT_MAX);
      return;
    }
    for (int i = 0; i < kSpins && turn.load(std::memory_order_relaxed) == seen; ++i) {
      if (!fenced && !has_plain_readers_besides(nullptr)) {  // (H): by now they wait, too
        fenced = true;
        if (end_if_clear(bound, true)) {
          announce();
          return;
        }
      }
      cpu_pause();
    }
    in_line.fetch_add(1, std::memory_order_seq_cst);
    if (completed.load(std::memory_order_seq_cst) < cookie) futex_wait(turn, seen);
    in_line.fetch_sub(1, std::memory_order_relaxed);
  }
}

void Core::announce() noexcept {
  turn.fetch_add(kTurn, std::memory_order_seq_cst);
  if (in_line.load(std::memory_order_seq_cst) != 0) futex_wake(turn, INT_MAX);
}

void Core::await(std::uint64_t cookie, Reader* self) noexcept {
  if (completed_for(cookie)) return;
  const std::uint64_t bound = bound_for(cookie);
  full_fence();  // (F), (H)
  drive(cookie, bound, self);
}

void Core::synchronize(Reader* self) noexcept {
  if (planted_fault("rcu-relaxed-bump")) {  // as if nobody saw the sequence advance until later
    const std::uint64_t stale = sequence.load(std::memory_order_relaxed);
    return await(stale, self);
  }
  const std::uint64_t cookie = sequence.fetch_add(kStep, std::memory_order_seq_cst) + kStep;
  fence_after_rmw();  // (F), (H)
  drive(cookie, cookie, self);
}

domain_stats Core::snapshot() noexcept {
  const auto read = [](const Counters::Count& count) {
    return count.load(std::memory_order_relaxed);
  };
  domain_stats stats;
  stats.grace_periods = read(counters.grace_periods);
  stats.expedited = read(counters.expedited);
  stats.fences_skipped = read(counters.fences_skipped);
  stats.waits = read(counters.waits);
  stats.boosts = read(counters.boosts);
  stats.stalls = read(counters.stalls);
  for (const Queue* queue = queues.load(std::memory_order_acquire); queue; queue = queue->next) {
    stats.callbacks += read(queue->runs);
  }
  stats.throttled = read(counters.throttled);
  stats.overflowed = read(counters.overflowed);
  stats.worker_wakes = read(counters.worker_wakes);
  stats.waiting_words = read(backlog_words);
  stats.waiting_bytes = read(backlog_bytes);
  stats.light_readers = !kInstrumented && light_readers.load(std::memory_order_relaxed);
  const MutexLock lock(registry);
  stats.grace_periods += ended_at_once;
  stats.fences_skipped += skipped;
  for (const Reader* reader = readers; reader; reader = reader->next) ++stats.readers;
  return stats;
}

bool Core::seems_clear(std::uint64_t bound) noexcept {
  if (!registry.try_lock()) return false;
  bool clear = true;
  for (const Reader* reader = readers; reader; reader = reader->next) {
    const std::uint64_t state = reader->state.load(std::memory_order_acquire);  // (C)
    clear = clear && (state == 0 || state >= bound);
  }
  registry.unlock();
  return clear;
}

bool Core::try_await(std::uint64_t cookie) noexcept {
  if (completed_for(cookie)) return true;
  const KeepErrno keep;
  std::uint64_t now = sequence.load(std::memory_order_acquire);
  if (now < cookie) now = sequence.fetch_add(kStep, std::memory_order_acq_rel) + kStep;
  if (!seems_clear(now)) return false;  // no reason to interrupt anybody
  fence(nullptr);                       // (F)
  if (!seems_clear(now)) return false;
  complete(now);
  announce();
  return true;
}

}  // namespace tandem::rcu::detail
