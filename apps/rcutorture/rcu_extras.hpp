// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

#include "options.hpp"
#include "pipe.hpp"
#include "tally.hpp"
#include "tandem/rcu/gp_state.hpp"
#include "tandem/rcu/rcu.hpp"
#include "team.hpp"

namespace tandem::rcutorture {

/// What only rcu_domain is tortured with: signal handlers that read and poll, stalled readers,
/// offloading that is switched, barriers inside sections and deleters, domains that come and go.
class RcuExtras {
 public:
  /// `element`: what handlers look at.
  RcuExtras(rcu::rcu_domain& domain, const Options& options, Tally& tally, Team& team,
            const std::atomic<Element*>& element);
  RcuExtras(const RcuExtras&) = delete;
  RcuExtras& operator=(const RcuExtras&) = delete;
  ~RcuExtras();

  void add_threads();

 private:
  void send_signals();
  static void on_signal(void* self) noexcept;
  void stall();
  void toggle_offload();
  void barrier_inside();
  void make_domains();

  rcu::rcu_domain& domain_;
  const Options& options_;
  Tally& tally_;
  Team& team_;
  const std::atomic<Element*>& element_;
  Line& signals_;
  rcu::rcu_domain handlers_domain_;  // that only handlers and those who wait for them use
};

}  // namespace tandem::rcutorture
