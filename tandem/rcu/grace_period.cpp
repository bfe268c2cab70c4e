// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/grace_period.hpp"

#include "tandem/rcu/detail/core.hpp"

namespace tandem::rcu {

using detail::DomainAccess;

gp_state get_state(rcu_domain& dom) noexcept { return {DomainAccess::core(dom).cookie()}; }

gp_state start_poll(rcu_domain& dom) noexcept {
  detail::Core& core = DomainAccess::core(dom);
  const gp_state state{core.cookie()};
  core.want(state.value);
  return state;
}

gp_state start_poll_expedited(rcu_domain& dom) noexcept {
  detail::Core& core = DomainAccess::core(dom);
  const gp_state state{core.cookie()};
  if (!core.try_await(state.value)) core.want(state.value);
  return state;
}

bool poll_state(gp_state state, rcu_domain& dom) noexcept {
  detail::Core& core = DomainAccess::core(dom);
  if (core.completed_for(state.value)) return true;
  // The worker may be inside a deleter for long, and this may be that deleter.
  const detail::Lane& driver = core.lanes[0];
  const bool driven = driver.worker.running() && !driver.away.load(std::memory_order_acquire);
  return !driven && core.try_await(state.value);
}

void cond_synchronize(gp_state state, rcu_domain& dom) noexcept {
  DomainAccess::await(dom, state.value, /*expedited=*/false);
}

void cond_synchronize_expedited(gp_state state, rcu_domain& dom) noexcept {
  DomainAccess::await(dom, state.value, /*expedited=*/true);
}

bool prepare_polling(rcu_domain& dom) noexcept {
  detail::Core& core = DomainAccess::core(dom);
  return core.start_worker(core.lanes[0]);
}

}  // namespace tandem::rcu
