// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/tasks_domain_base.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <thread>

#include "tandem/base/cpu.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/rcu/detail/caller_state.hpp"
#include "tandem/rcu/detail/process.hpp"

namespace tandem::rcu {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::nanoseconds;
using namespace std::chrono_literals;

constexpr int kSpins = 64;  // looks with a pause between them, about 10 µs
constexpr int kPauses = 8;  // in one pause

/// How long to sleep for a thread whose wake-up may be lost: readers that fence for themselves do
/// not fence before they look whether they have to wake somebody.
constexpr nanoseconds kLossySleep = 1ms;

/// Between looks at threads that do not wake us: doubles from the first to the second.
constexpr nanoseconds kFirstPoll = 50us;
constexpr nanoseconds kLastPoll = 10ms;

/// Whether an entry holds `bound` up. With `mark`, asks each that does to wake us.
bool any_holds(detail::Flavour& flavour, detail::Registry& registry, std::uint64_t bound,
               detail::Evidence evidence, bool mark) noexcept {
  bool any = false;
  const MutexLock lock(registry.mutex);
  for (detail::TaskEntry* entry = registry.entries; entry; entry = entry->next) {
    if (!flavour.holds(*entry, bound, evidence)) continue;
    any = true;
    if (flavour.observed) continue;  // each look at a thread is what the next one compares with
    if (!mark) break;
    entry->wake.store(1, std::memory_order_relaxed);
  }
  return any;
}

/// Ordering: `wake` is stored before the fence and the state is loaded after it; the thread stores
///           its state, then loads `wake`. So either we see that it moved, or it sees that we wait,
///           and changes `moved` after we have read it.
void sleep_for_tasks(detail::Flavour& flavour, detail::Registry& registry, std::uint64_t bound,
                     detail::Evidence evidence, nanoseconds longest) noexcept {
  const std::uint32_t seen = registry.moved.load(std::memory_order_acquire);
  if (!any_holds(flavour, registry, bound, evidence, /*mark=*/true)) return;
  detail::grace_period_fence();
  if (!any_holds(flavour, registry, bound, evidence, /*mark=*/false)) return;
  const bool lossy =
      detail::kInstrumented || !detail::light_readers.load(std::memory_order_relaxed);
  futex_wait(registry.moved, seen, lossy ? std::min(longest, kLossySleep) : longest);
}

void raise(std::atomic<std::uint64_t>& word, std::uint64_t to) noexcept {
  std::uint64_t value = word.load(std::memory_order_relaxed);
  while (value < to && !word.compare_exchange_weak(value, to, std::memory_order_acq_rel)) {
  }
}

}  // namespace

/// Knows when a grace period has to be reported.
class tasks_domain_base::StallWatch {
 public:
  explicit StallWatch(tasks_domain_base& domain)
      : domain_(domain), begin_(Clock::now()), due_(domain.stall_limit_) {}

  /// How long to sleep at most.
  nanoseconds rest() const noexcept {
    return std::max<nanoseconds>(due_ - (Clock::now() - begin_), 1us);
  }

  void report_if_due(detail::Registry& registry, std::uint64_t bound) noexcept {
    const nanoseconds age = Clock::now() - begin_;
    if (age < due_) return;
    due_ = 2 * age;
    ++report_;
    std::array<std::int32_t, 16> tids{};
    std::size_t count = 0;
    {
      const MutexLock lock(registry.mutex);
      for (detail::TaskEntry* entry = registry.entries; entry; entry = entry->next) {
        if (count == tids.size()) break;
        if (domain_.flavour_.holds(*entry, bound, domain_.evidence_)) tids[count++] = entry->tid;
      }
    }
    if (count == 0) return;
    domain_.stalls_.fetch_add(1, std::memory_order_relaxed);
    if (!domain_.stall_handler_) return;
    for (const std::int32_t tid : std::span(tids).first(count)) {
      domain_.stall_handler_({tid, age, report_}, domain_.stall_context_);
    }
  }

 private:
  tasks_domain_base& domain_;
  const Clock::time_point begin_;
  nanoseconds due_;  // after begin_
  std::uint32_t report_ = 0;
};

/// Why it suffices to look until nobody holds `bound` up.
///
/// We loaded `bound` from the sequence, or a value above, after the update that is guarded, and
/// then ran the flavour's fence (F). `holds` is false for an entry only if the thread was outside
/// regions at a time after (F), or has been so in a region's end that it stored with release; each
/// flavour argues that above its own `holds`. A region that begins later sees the update.
///
/// Callers do not take turns: whoever finishes a bound says so in `completed`, and the others,
/// whose advance came before that bound was loaded, end with it. So a domain's stall handler hears
/// of every wait of its domain.
void tasks_domain_base::wait() noexcept {
  const detail::NotCancelled guard;
  detail::prepare(flavour_);
  const std::uint64_t target = flavour_.sequence.fetch_add(1, std::memory_order_acq_rel) + 1;
  if (planted_fault(flavour_.planted_fault_name)) return;
  if (flavour_.end_own_region) flavour_.end_own_region();
  detail::Registry& registry = *flavour_.registry.load(std::memory_order_acquire);
  const std::uint64_t bound = flavour_.sequence.load(std::memory_order_acquire);
  flavour_.fence();  // (F)
  StallWatch watch(*this);
  nanoseconds poll = kFirstPoll;
  // What others accept as evidence may be less than what this domain does.
  const bool shares = evidence_ == detail::Evidence::kAny;
  for (int round = 0; any_holds(flavour_, registry, bound, evidence_, /*mark=*/false); ++round) {
    if (shares && flavour_.completed.load(std::memory_order_acquire) >= target) break;
    if (flavour_.observed) {
      std::this_thread::sleep_for(std::min(poll, watch.rest()));
      poll = std::min(2 * poll, kLastPoll);
      watch.report_if_due(registry, bound);
    } else if (round < kSpins) {
      for (int i = 0; i < kPauses; ++i) cpu_pause();
    } else {
      sleep_for_tasks(flavour_, registry, bound, evidence_, watch.rest());
      watch.report_if_due(registry, bound);
    }
  }
  // What the kernel did for a thread that was only looked at, our caller's next accesses follow.
  if (flavour_.observed) detail::grace_period_fence();
  if (!shares || flavour_.completed.load(std::memory_order_acquire) < target) {
    raise(flavour_.completed, bound);
  }
  grace_periods_.fetch_add(1, std::memory_order_relaxed);
}

tasks_stats tasks_domain_base::stats() const noexcept {
  const auto counts = worker_.counts();
  return {grace_periods_.load(std::memory_order_relaxed), counts.queued, counts.invoked,
          stalls_.load(std::memory_order_relaxed)};
}

}  // namespace tandem::rcu
