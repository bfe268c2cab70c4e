// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/tasks_rude.hpp"

#include <algorithm>

#include "tandem/rcu/detail/process.hpp"
#include "tandem/rcu/detail/thread_activity.hpp"

namespace tandem::rcu {
namespace detail {
namespace {

/// What a thread runs at most from a sleep in a page fault to where the kernel counts the fault:
/// a thousand times what it takes.
constexpr std::uint64_t kOutOfFaultNs = 1'000'000;

/// Looks at the thread once, for all grace periods that wait now.
///
/// `now` is loaded first: who advanced the sequence to it or below made his update before we look.
/// A thread that is blocked in a system call is outside regions, and what it does when it runs
/// again comes after a wake-up, which fences.
///
/// A count of voluntary switches that has grown since `base_sequence` shows a switch since then,
/// unless it was the sleep of a page fault, which the kernel counts where it ends. So a switch that
/// was seen is believed once the thread has run for longer than it takes to come out of such a
/// fault, and no fault has ended. In this order: the CPU time that has passed is read before the
/// faults that ended in it, and these, at the base, before the switches that they may explain.
void look(RudeEntry& entry) noexcept {
  const std::uint64_t now = tasks_rude_flavour.sequence.load(std::memory_order_acquire);
  if (thread_activity(entry.tid) == Activity::kInSystemCall) {
    entry.passed = entry.passed_blocked = now;
    return;
  }
  const auto cpu_time = cpu_time_ns(entry.tid);
  const auto faults = page_faults(entry.tid);
  const auto switches = voluntary_switches(entry.tid);
  if (!cpu_time || !faults || !switches) return;
  if (entry.base_sequence != 0 && *faults == entry.base_faults) {
    if (entry.switched) {
      if (*cpu_time < entry.switched_at + kOutOfFaultNs) return;
      entry.passed = std::max(entry.passed, entry.base_sequence);
    } else if (*switches != entry.base_switches) {
      const auto since = cpu_time_ns(entry.tid);
      entry.switched = since.has_value();
      entry.switched_at = since.value_or(0);
      return;
    }
  }
  entry.base_sequence = now;
  entry.base_switches = *switches;
  entry.base_faults = *faults;
  entry.switched = false;
}

bool rude_passed(const RudeEntry& entry, std::uint64_t target, Evidence evidence) noexcept {
  return entry.state.load(std::memory_order_acquire) >= target ||
         (evidence == Evidence::kAny ? entry.passed : entry.passed_blocked) >= target;
}

/// The ends of regions that are only looked at release nothing that we acquire: the switch itself
/// fences on the task's side, and wait() fences after its last look.
bool rude_holds(TaskEntry& task, std::uint64_t target, Evidence evidence) noexcept {
  auto& entry = static_cast<RudeEntry&>(task);
  if (rude_passed(entry, target, evidence)) return false;
  look(entry);
  return !rude_passed(entry, target, evidence);
}

/// The caller is about to block, but until it does, looks find it running.
void end_own_region() noexcept { tasks_rude_quiescent(); }

}  // namespace

constinit Flavour tasks_rude_flavour{rude_holds, full_fence, end_own_region, true,
                                     "rcu-tasks-rude-early"};
constinit thread_local RudeEntry tasks_rude_entry;

}  // namespace detail

tasks_rude_domain::task::task() noexcept {
  detail::RudeEntry& self = detail::tasks_rude_entry;
  if (self.registrations++ != 0) return;
  // Nothing that was seen of the thread, or of another with its number, counts any more.
  self.passed = self.passed_blocked = self.base_sequence = 0;
  detail::attach(detail::tasks_rude_flavour, self);
  self.state.store(detail::tasks_rude_flavour.sequence.load(std::memory_order_acquire),
                   std::memory_order_seq_cst);
  full_fence();
}

tasks_rude_domain::task::~task() {
  detail::RudeEntry& self = detail::tasks_rude_entry;
  if (self.registrations == 0) return;  // after the thread's exit hook
  if (--self.registrations == 0) detail::detach(detail::tasks_rude_flavour, self);
}

tasks_rude_domain::tasks_rude_domain(rude_evidence evidence) noexcept
    : tasks_domain_base(detail::tasks_rude_flavour,
                        evidence == rude_evidence::voluntary_switch
                            ? detail::Evidence::kAny
                            : detail::Evidence::kBlockedOnly,
                        "rcu-tasks-rude") {}

tasks_rude_domain::~tasks_rude_domain() {
  detail::end_own_region();
  worker().drain();
}

void tasks_rude_domain::synchronize() noexcept { wait(); }

void tasks_rude_domain::call(callback_head& head, void (*run)(callback_head*) noexcept) noexcept {
  head.run = run;
  detail::end_own_region();
  worker().push(head, /*may_sleep=*/true);
}

void tasks_rude_domain::barrier() noexcept {
  detail::end_own_region();
  worker().barrier();
}

}  // namespace tandem::rcu
