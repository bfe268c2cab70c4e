// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/detail/core.hpp"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <optional>

#include "tandem/base/cpu.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/rcu/detail/process.hpp"

namespace tandem::rcu::detail {
namespace {

constexpr int kSpins = 64;   // scans with a pause between them, about 10 µs
constexpr int kYields = 16;  // then scans with a yield between them
constexpr int kPauses = 8;   // in one pause

/// How long to sleep for a reader whose wake-up may be lost: readers that fence for themselves do
/// not fence in unlock(), where (D) would cost as much again.
constexpr std::chrono::milliseconds kLossySleep{1};

}  // namespace

void Core::release() noexcept {
  if (references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

void Core::link(Reader& reader) noexcept {
  const MutexLock lock(registry);
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
  }
  wake_all();
}

void Core::wake_all() noexcept {
  moved.fetch_add(1, std::memory_order_acq_rel);
  futex_wake(moved, INT_MAX);
}

void wake_waiters(Reader& reader) noexcept {
  // Cleared before `moved` changes: who sets it again has read the new value and waits on that.
  reader.wake.store(0, std::memory_order_release);
  reader.core->wake_all();
}

std::uint64_t Core::oldest_reader(std::uint64_t bound) noexcept {
  const MutexLock lock(registry);
  std::uint64_t oldest = bound;
  for (const Reader* reader = readers; reader; reader = reader->next) {
    const std::uint64_t state = reader->state.load(std::memory_order_acquire);  // (C)
    if (state != 0) oldest = std::min(oldest, state);
  }
  return oldest;
}

/// Why one fence and one scan suffice.
///
/// The caller loaded `bound` from the sequence, or wrote it, after the update it guards. Take a
/// reader's outermost section. Either its state store is visible to the first scan after the fence
/// (F), and we wait until the state is 0 or at least `bound`; both were stored with release after
/// the section's last access. Or it is not, and then everything that the section loads after (A)
/// comes after (F): it sees the update. A state of at least `bound` was loaded with acquire (B)
/// from a sequence advanced after the update: that section sees it, too.
void Core::wait_for_readers(std::uint64_t bound) noexcept {
  if (planted_fault("rcu-early-grace-period")) return;
  grace_period_fence();  // (F)
  for (int round = 0; oldest_reader(bound) < bound; ++round) {
    if (round < kSpins) {
      for (int i = 0; i < kPauses; ++i) cpu_pause();
    } else if (round < kSpins + kYields) {
      ::sched_yield();
    } else {
      sleep_for_readers(bound);
    }
  }
}

/// Ordering: `wake` is stored before (F) and the state is loaded after it; the reader stores its
///           state before (D) and loads `wake` after it. So either we see that it left, or it sees
///           that we wait, and changes `moved` after we have read it.
void Core::sleep_for_readers(std::uint64_t bound) noexcept {
  const std::uint32_t seen = moved.load(std::memory_order_acquire);
  {
    const MutexLock lock(registry);
    for (Reader* reader = readers; reader; reader = reader->next) {
      const std::uint64_t state = reader->state.load(std::memory_order_relaxed);
      if (state != 0 && state < bound) reader->wake.store(1, std::memory_order_relaxed);
    }
  }
  grace_period_fence();  // (F)
  if (oldest_reader(bound) >= bound) return;
  const bool lossy = kInstrumented || !process.light.load(std::memory_order_relaxed);
  futex_wait(moved, seen,
             lossy ? std::optional<std::chrono::nanoseconds>(kLossySleep) : std::nullopt);
}

/// A caller advances the sequence to `target`. Whoever then gets `grace` and finds `completed` at
/// or above it was served: that grace period loaded its bound from our advance or a later one,
/// hence after our update, before it fenced and scanned.
void Core::synchronize() noexcept {
  const std::uint64_t target = sequence.fetch_add(1, std::memory_order_acq_rel) + 1;
  const MutexLock lock(grace);
  if (completed >= target) return;
  const std::uint64_t bound = sequence.load(std::memory_order_acquire);
  wait_for_readers(bound);
  completed = bound;
}

}  // namespace tandem::rcu::detail
