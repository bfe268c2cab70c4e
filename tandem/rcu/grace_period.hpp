// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <utility>

#include "tandem/rcu/gp_state.hpp"
#include "tandem/rcu/rcu.hpp"

/// Polled grace periods: for who cannot wait now.
///
/// get_state() names the grace period that an update needs, poll_state() says later whether it has
/// passed, and cond_synchronize() waits if it has not. start_poll() also sees to it that it begins.
///
/// All but the cond_synchronize() may be called in sections and are async-signal-safe: no lock is
/// waited for, nothing is allocated. (In a child of fork() this holds for the default domain and
/// those that the thread has been in a section of.) No thread can be started there, however: a
/// domain has one from its first retire or prepare_polling(). Without it, poll_state() tries by
/// itself.
///
/// Spec: Linux kernel documentation, "RCU API": get_state_synchronize_rcu(),
///       start_poll_synchronize_rcu(), poll_state_synchronize_rcu(), cond_synchronize_rcu(), and
///       their _expedited variants.
namespace tandem::rcu {

/// Names a grace period that begins after the call; does not start it.
///
/// Ordering: as the beginning of rcu_synchronize().
gp_state get_state(rcu_domain& dom = rcu_default_domain()) noexcept;

/// As get_state(), and has it begin soon.
gp_state start_poll(rcu_domain& dom = rcu_default_domain()) noexcept;

/// As start_poll(), but looks at the readers at once; often the grace period ends here and now.
gp_state start_poll_expedited(rcu_domain& dom = rcu_default_domain()) noexcept;

/// Whether the grace period has ended. Once true it stays true.
///
/// Units:    one load while the domain has a thread, else a look at every reader; so, too, while
///           that thread is busy with deleters, of which the caller may be one.
/// Ordering: if true, as the return of rcu_synchronize().
bool poll_state(gp_state state, rcu_domain& dom = rcu_default_domain()) noexcept;

/// Returns once the grace period has ended; drives it if nobody else does.
/// Thread safety: any thread outside sections of `dom` (checked), not in signal handlers.
void cond_synchronize(gp_state state, rcu_domain& dom = rcu_default_domain()) noexcept;

/// As cond_synchronize(), in the way of rcu_synchronize_expedited().
void cond_synchronize_expedited(gp_state state, rcu_domain& dom = rcu_default_domain()) noexcept;

/// Starts the domain's thread, so that polled grace periods end without help.
///
/// Returns:       whether it runs.
/// Thread safety: any thread; not a signal handler.
bool prepare_polling(rcu_domain& dom = rcu_default_domain()) noexcept;

namespace detail {
inline gp_state start_poll_of(rcu_domain& dom) noexcept { return start_poll(dom); }
inline void finish_poll_of(rcu_domain& dom, gp_state state) noexcept {
  cond_synchronize(state, dom);
}
template <class Domain>
concept Pollable = requires(Domain& dom, gp_state state) {
  { dom.start_poll() } -> std::same_as<gp_state>;
  dom.cond_synchronize(state);
};
template <class Domain>
gp_state start_poll_of(Domain& dom) noexcept {
  if constexpr (Pollable<Domain>) return dom.start_poll();
  return {};
}
template <class Domain>
void finish_poll_of(Domain& dom, gp_state state) noexcept {
  if constexpr (Pollable<Domain>) {
    dom.cond_synchronize(state);
  } else {
    dom.synchronize();
  }
}
}  // namespace detail

/// Returns once a grace period of each domain has passed. Takes rcu_domain, srcu_domain and the
/// Tasks domains. Those that can be polled are begun first, and go on while another is waited for.
///
/// Thread safety: any thread outside sections of all of them.
/// Spec:          Linux kernel documentation, "RCU API": synchronize_rcu_mult.
template <class... Domains>
void synchronize_mult(Domains&... domains) noexcept {
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    const gp_state states[] = {detail::start_poll_of(domains)...};
    (detail::finish_poll_of(domains, states[I]), ...);
  }
  (std::index_sequence_for<Domains...>{});
}

}  // namespace tandem::rcu
