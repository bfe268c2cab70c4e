// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <thread>
#include <utility>

#include "parcel.hpp"
#include "random.hpp"
#include "tandem/rcu/srcu.hpp"

namespace tandem::rcutorture {

/// As RcuFlavour, for srcu_domain: readers that sleep, sections that end in any order.
struct SrcuFlavour {
  static constexpr const char* kName = "srcu";
  static constexpr bool kIsRcuDomain = false;
  static constexpr bool kCallEndsSections = false;
  using Domain = rcu::srcu_domain;
  struct GracePeriod {
    const char* name;
    void (*run)(Domain& domain, Random& random);
  };

  class Reader {
   public:
    Reader(Domain& domain, unsigned) : domain_(domain) {}
    const char* name() const noexcept { return "sleepable readers"; }
    void enter(Random& random) noexcept {
      for (unsigned depth = random.one_in(4) ? kDepth - 1 : 1; depth != 0; --depth) lock();
    }
    /// Ends the outermost of several sections first, after another has begun. Not a single one: a
    /// grace period that began between the two does not wait for the second.
    void hand_over(Random& random) noexcept {
      if (random.one_in(256)) std::this_thread::sleep_for(std::chrono::microseconds(50));
      if (depth_ == 1 || !random.one_in(4)) return;
      lock();
      std::swap(tokens_[0], tokens_[depth_ - 1]);
      unlock();
    }
    void leave(Random&) noexcept {
      while (depth_ != 0) unlock();
    }

   private:
    static constexpr std::size_t kDepth = 4;
    void lock() noexcept { tokens_[depth_++] = domain_.lock(); }
    void unlock() noexcept { domain_.unlock(tokens_[--depth_]); }
    Domain& domain_;
    std::array<int, kDepth> tokens_{};
    std::size_t depth_ = 0;
  };

  static std::span<const GracePeriod> grace_periods() {
    static constexpr std::array kAll{
        GracePeriod{"synchronize", [](Domain& domain, Random&) { domain.synchronize(); }},
        GracePeriod{"expedited", [](Domain& domain, Random&) { domain.synchronize_expedited(); }},
        GracePeriod{"conditional",
                    [](Domain& domain, Random& random) {
                      const rcu::gp_state state = domain.get_state();
                      random.delay();
                      domain.cond_synchronize(state);
                    }},
        GracePeriod{"conditional expedited",
                    [](Domain& domain, Random& random) {
                      const rcu::gp_state state = domain.get_state();
                      random.delay();
                      domain.cond_synchronize_expedited(state);
                    }},
        GracePeriod{"polled",
                    [](Domain& domain, Random&) {
                      const rcu::gp_state state = domain.start_poll();
                      while (!domain.poll_state(state)) std::this_thread::yield();
                    }},
    };
    return kAll;
  }
  static void call(Domain& domain, rcu::callback_head& head,
                   void (*function)(rcu::callback_head*) noexcept) noexcept {
    domain.call(head, function);
  }
  static void post(Domain& domain, Ledger& ledger, Random&) { domain.retire(new Parcel(ledger)); }
  static void barrier(Domain& domain) noexcept { domain.barrier(); }
};

}  // namespace tandem::rcutorture
