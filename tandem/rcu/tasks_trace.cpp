// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/tasks_trace.hpp"

#include "tandem/rcu/detail/caller_state.hpp"
#include "tandem/rcu/detail/process.hpp"

namespace tandem::rcu {
namespace detail {
namespace {

/// Take a thread's outermost section. Either its state store is visible to the first look after the
/// fence (F), and we wait until the state is 0 or its sequence at least `target`; both were stored
/// with release after the section's last access. Or it is not, and then everything that the section
/// loads after (A) comes after (F): it sees the update. A sequence of at least `target` was loaded
/// with acquire (B) after the update: that section sees it, too.
///
/// A signal handler's section inside lock() or unlock() leaves the word as it was, so the
/// interrupted store, however old what it stores, is one of the cases above: an old sequence only
/// makes us wait longer.
bool trace_holds(TaskEntry& entry, std::uint64_t target, Evidence) noexcept {
  const std::uint64_t state = entry.state.load(std::memory_order_acquire);  // (C)
  return state != 0 && (state >> kTraceDepthBits) < target;
}

}  // namespace

constinit Flavour tasks_trace_flavour{trace_holds, grace_period_fence, nullptr, false,
                                      "rcu-tasks-trace-early"};
constinit thread_local TaskEntry tasks_trace_entry;

void attach_trace_entry() noexcept {
  const KeepErrno keep;
  attach(tasks_trace_flavour, tasks_trace_entry);
}

namespace {

/// To be called before the registry's mutex is taken: a handler that interrupts its holder, and
/// opens a section there, then need not take it.
void attach_self() noexcept {
  if (thread_ends) return block_signals_for_good();
  if (tasks_trace_entry.generation != current_generation()) attach_trace_entry();
}

}  // namespace

void enter_fenced(TaskEntry& self, std::uint64_t state) noexcept {
  self.state.store(state, std::memory_order_seq_cst);
  full_fence();
}

}  // namespace detail

tasks_trace_domain::tasks_trace_domain() noexcept
    : tasks_domain_base(detail::tasks_trace_flavour, detail::Evidence::kAny, "rcu-tasks-trace") {
  detail::prepare(detail::tasks_trace_flavour);
}

tasks_trace_domain::~tasks_trace_domain() {
  TANDEM_CHECK(!tasks_trace_held());
  detail::attach_self();
  worker().drain();
}

void tasks_trace_domain::synchronize() noexcept {
  TANDEM_CHECK(!tasks_trace_held());  // would wait for itself
  detail::attach_self();
  wait();
}

void tasks_trace_domain::call(callback_head& head, void (*run)(callback_head*) noexcept) noexcept {
  head.run = run;
  if (!tasks_trace_held()) detail::attach_self();  // it may have to run the callbacks
  worker().push(head, /*may_sleep=*/!tasks_trace_held());
}

void tasks_trace_domain::barrier() noexcept {
  TANDEM_CHECK(!tasks_trace_held());
  detail::attach_self();
  worker().barrier();
}

}  // namespace tandem::rcu
