// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <span>

#include "parcel.hpp"
#include "random.hpp"
#include "tandem/rcu/call.hpp"
#include "tandem/rcu/expedite.hpp"
#include "tandem/rcu/grace_period.hpp"
#include "tandem/rcu/quiescent.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::rcutorture {

/// What a torture needs of a kind of domain: readers, ways to wait for a grace period, callbacks.
/// This one is rcu_domain, with the kinds of readers in kKinds.
inline constexpr unsigned kPlain = 1;
inline constexpr unsigned kFenced = 2;
inline constexpr unsigned kQuiescent = 4;

/// One way to wait for a grace period.
struct RcuGracePeriod {
  const char* name;
  void (*run)(rcu::rcu_domain& domain, Random& random);
  bool polls = false;  // it is no quiescent state of its caller
};
std::span<const RcuGracePeriod> rcu_grace_periods();

/// Has a Parcel deleted after a grace period: call(), retire() and free() in all their forms.
void post_rcu_parcel(rcu::rcu_domain& domain, Ledger& ledger, Random& random);
/// Those forms that rcu_barrier() waits for also inside a section.
void retire_rcu_parcel(rcu::rcu_domain& domain, Ledger& ledger, Random& random);

template <unsigned kKinds>
struct RcuFlavour {
  static constexpr const char* kName =
      kKinds == kFenced ? "fenced" : (kKinds == kQuiescent ? "qsbr" : "rcu");
  static constexpr bool kIsRcuDomain = true;
  static constexpr bool kCallEndsSections = false;
  using Domain = rcu::rcu_domain;
  using GracePeriod = RcuGracePeriod;

  /// A thread's way to read. Between leave() and enter() it may wait for grace periods.
  class Reader {
   public:
    Reader(Domain& domain, unsigned number) : domain_(domain), fenced_(domain) {
      while ((kKinds >> number % 3 & 1) == 0) ++number;
      kind_ = 1u << number % 3;
      if (kind_ == kQuiescent) online_.emplace(domain);
    }
    const char* name() const noexcept {
      return kind_ == kPlain ? "plain readers"
                             : (kind_ == kFenced ? "fenced readers" : "quiescent readers");
    }
    void enter(Random& random) noexcept {
      if (kind_ == kQuiescent) {
        online_->online();
        if ((kKinds & kPlain) == 0 || !random.one_in(8)) return;
      }
      for (unsigned depth = random.one_in(4) ? 3 : 1; depth != 0; --depth) lock(kind_);
    }
    /// Ends the first part of the section after another kind of section has begun.
    void hand_over(Random& random) noexcept {
      if (depth_ == 0 || !random.one_in(4)) return;
      lock(kind_ == kPlain ? kFenced & kKinds : kPlain & kKinds);
      unlock();
    }
    void leave(Random& random) noexcept {
      while (depth_ != 0) unlock();
      if (kind_ != kQuiescent) return;
      if (random.one_in(16)) {
        online_->offline();
      } else {
        online_->quiescent();
      }
    }

    /// Outside sections the thread holds nobody up from here on.
    void rest() noexcept {
      if (online_) online_->offline();
    }

   private:
    void lock(unsigned kind) noexcept {
      if (kind == kFenced || kKinds == kFenced) {
        fenced_.lock();
      } else {
        domain_.lock();
      }
      ++depth_;
    }
    void unlock() noexcept {
      domain_.unlock();
      --depth_;
    }
    Domain& domain_;
    rcu::fenced_reader fenced_;
    std::optional<rcu::quiescent_reader> online_;
    unsigned kind_ = 0;
    unsigned depth_ = 0;
  };

  static std::span<const GracePeriod> grace_periods() { return rcu_grace_periods(); }
  static void call(Domain& domain, rcu::callback_head& head,
                   void (*function)(rcu::callback_head*) noexcept) noexcept {
    rcu::call(head, function, sizeof(Element), domain);
  }
  static void post(Domain& domain, Ledger& ledger, Random& random) {
    post_rcu_parcel(domain, ledger, random);
  }
  static void barrier(Domain& domain) noexcept { rcu::rcu_barrier(domain); }
  /// The thread exits next.
  static void exit_inside_a_section(Domain& domain) noexcept {
    if (kKinds == kFenced) {
      rcu::fenced_reader(domain).lock();
    } else {
      domain.lock();
    }
  }
};

}  // namespace tandem::rcutorture
