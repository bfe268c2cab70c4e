// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/tasks.hpp"

#include "tandem/base/check.hpp"
#include "tandem/rcu/detail/process.hpp"

namespace tandem::rcu {
namespace detail {
namespace {

/// A state of at least `target` was loaded with acquire (B) from a sequence advanced after the
/// update, and stored (C) after the last access of the region before: the next region sees the
/// update. State 0 is stored with release after the last access; who leaves it, stores the state
/// and then fences (A), so either this look sees that, or its region sees the update.
bool tasks_holds(TaskEntry& entry, std::uint64_t target, Evidence) noexcept {
  const std::uint64_t state = entry.state.load(std::memory_order_acquire);  // (C)
  return state != 0 && state < target;
}

void enter_online(TaskEntry& self) noexcept {
  self.state.store(tasks_flavour.sequence.load(std::memory_order_acquire),  // (B)
                   std::memory_order_seq_cst);
  full_fence();  // (A)
}

void enter_idle(TaskEntry& self) noexcept {
  self.state.store(0, kReaderOrder);  // (C)
  full_fence();
  if (self.wake.load(std::memory_order_relaxed) != 0) wake_waiters(tasks_flavour, self);
}

}  // namespace

// (F) is the updater's own: all that crosses it on the other side are rare and fence, too.
constinit Flavour tasks_flavour{tasks_holds, full_fence, nullptr, false, "rcu-tasks-early"};
constinit thread_local TaskEntry tasks_entry;

}  // namespace detail

void tasks_idle::enter() noexcept { detail::enter_idle(detail::tasks_entry); }
void tasks_idle::leave() noexcept { detail::enter_online(detail::tasks_entry); }

tasks_domain::task::task() noexcept {
  detail::TaskEntry& self = detail::tasks_entry;
  if (self.registrations++ != 0) {
    TANDEM_CHECK(self.state.load(std::memory_order_relaxed) != 0);
    return;
  }
  detail::attach(detail::tasks_flavour, self);
  detail::enter_online(self);
}

tasks_domain::task::~task() {
  detail::TaskEntry& self = detail::tasks_entry;
  if (self.registrations == 0) return;  // after the thread's exit hook
  if (--self.registrations == 0) detail::detach(detail::tasks_flavour, self);
}

tasks_domain::tasks_domain() noexcept
    : tasks_domain_base(detail::tasks_flavour, detail::Evidence::kAny, "rcu-tasks") {}

tasks_domain::~tasks_domain() {
  const tasks_idle idle;
  worker().drain();
}

void tasks_domain::synchronize() noexcept {
  const tasks_idle idle;
  wait();
}

void tasks_domain::call(callback_head& head, void (*run)(callback_head*) noexcept) noexcept {
  head.run = run;
  const bool online = detail::tasks_entry.state.load(std::memory_order_relaxed) != 0;
  worker().push(head, /*may_sleep=*/!online);
  if (online) worker().relieve();
}

void tasks_domain::barrier() noexcept {
  const tasks_idle idle;
  worker().barrier();
}

}  // namespace tandem::rcu
