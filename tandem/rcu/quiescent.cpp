// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/quiescent.hpp"

#include "tandem/base/planted_fault.hpp"
#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/process.hpp"

namespace tandem::rcu {

using detail::DomainAccess;
using detail::kReaderOrder;

quiescent_reader::quiescent_reader(rcu_domain& dom) noexcept
    : domain_(dom), self_(DomainAccess::reader(dom)), sequence_(DomainAccess::sequence(dom)) {
  TANDEM_CHECK(!self_.online && self_.nesting() == 0);
  self_.held = true;
  online();
}

quiescent_reader::~quiescent_reader() {
  offline();
  self_.held = false;
  if (detail::thread_ends) detail::leave_for_good(self_);
}

void quiescent_reader::online() noexcept {
  if (self_.online) return;
  (void)DomainAccess::reader(domain_);  // in a forked child the registration is the parent's
  TANDEM_CHECK(self_.nesting() == 0);
  detail::go_online(self_);
  self_.online = true;
}

void quiescent_reader::offline() noexcept {
  if (!self_.online) return;
  TANDEM_CHECK(self_.nesting() == 1);
  self_.online = false;
  detail::go_offline(self_);
  if (self_.queue->owes) self_.core->settle(self_);
}

/// Ordering: one release and one fence serve as (C) of the section that ends and as (A) and (D) of
///           the one that begins.
void quiescent_reader::renew() noexcept {
  if (!self_.online || self_.nesting() != 1) return;
  if (self_.queue->owes) {
    offline();
    return online();
  }
  self_.state.store(sequence_.load(std::memory_order_acquire), kReaderOrder);  // (B), (C)
  if (!planted_fault("rcu-quiescent-without-fence")) full_fence();             // (A), (D)
  if (self_.wake.load(std::memory_order_relaxed) != 0) detail::wake_waiters(self_);
}

void fenced_reader::lock() noexcept { DomainAccess::lock_fenced(domain_); }

}  // namespace tandem::rcu
