// SPDX-License-Identifier: Apache-2.0
#include "rcu_flavour.hpp"

#include <array>
#include <memory>
#include <thread>

namespace tandem::rcutorture {
namespace {

using rcu::gp_state;
using rcu::rcu_domain;

void poll_until_over(rcu_domain& domain, gp_state state) {
  while (!rcu::poll_state(state, domain)) std::this_thread::yield();
}

constexpr std::array kGracePeriods{
    RcuGracePeriod{"synchronize",
                   [](rcu_domain& domain, Random&) { rcu::rcu_synchronize(domain); }},
    RcuGracePeriod{"expedited",
                   [](rcu_domain& domain, Random&) { rcu::rcu_synchronize_expedited(domain); }},
    RcuGracePeriod{"conditional",
                   [](rcu_domain& domain, Random& random) {
                     const gp_state state = rcu::get_state(domain);
                     random.delay();
                     rcu::cond_synchronize(state, domain);
                   }},
    RcuGracePeriod{"conditional expedited",
                   [](rcu_domain& domain, Random& random) {
                     const gp_state state = rcu::get_state(domain);
                     random.delay();
                     rcu::cond_synchronize_expedited(state, domain);
                   }},
    RcuGracePeriod{
        "polled",
        [](rcu_domain& domain, Random&) { poll_until_over(domain, rcu::start_poll(domain)); },
        /*polls=*/true},
    RcuGracePeriod{"polled expedited",
                   [](rcu_domain& domain, Random&) {
                     poll_until_over(domain, rcu::start_poll_expedited(domain));
                   },
                   true},
    RcuGracePeriod{"several domains",
                   [](rcu_domain& domain, Random&) {
                     static rcu_domain other;
                     rcu::synchronize_mult(other, domain);
                   }},
};

struct Called : rcu::callback_head, Parcel {
  using Parcel::Parcel;
};
struct Member : Parcel {
  using Parcel::Parcel;
  rcu::callback_head head;
};
struct Retired : rcu::rcu_obj_base<Retired>, Parcel {
  using Parcel::Parcel;
};

}  // namespace

std::span<const RcuGracePeriod> rcu_grace_periods() { return kGracePeriods; }

void retire_rcu_parcel(rcu_domain& domain, Ledger& ledger, Random& random) {
  switch (random.below(3)) {
    case 0:
      return (new Retired(ledger))->retire({}, domain);
    case 1:
      return rcu::rcu_retire(new Parcel(ledger), std::default_delete<Parcel>{}, domain);
    default:
      return rcu::rcu_retire(
          new Parcel(ledger),
          [of = &ledger](Parcel* parcel) {
            if (&parcel->ledger != of) of->line.fail("a deleter got something else");
            delete parcel;
          },
          domain);
  }
}

void post_rcu_parcel(rcu_domain& domain, Ledger& ledger, Random& random) {
  switch (random.below(5)) {
    case 0: {
      auto* const called = new Called(ledger);
      return rcu::call(
          *called, [](rcu::callback_head* head) noexcept { delete static_cast<Called*>(head); },
          sizeof(Called), domain);
    }
    case 1:
      return rcu::free(new Called(ledger), domain);
    case 2:
      return rcu::free(new Parcel(ledger), domain);
    case 3:
      return rcu::free<&Member::head>(new Member(ledger), domain);
    default:
      return retire_rcu_parcel(domain, ledger, random);
  }
}

}  // namespace tandem::rcutorture
