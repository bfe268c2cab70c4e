// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <memory>
#include <span>
#include <type_traits>

#include "parcel.hpp"
#include "random.hpp"
#include "tandem/rcu/tasks.hpp"
#include "tandem/rcu/tasks_rude.hpp"
#include "tandem/rcu/tasks_trace.hpp"

namespace tandem::rcutorture {

/// As RcuFlavour, for the domains whose readers are tasks: a section goes from one voluntary point
/// to the next, or, for tasks_trace_domain, is marked.
template <class TasksDomain>
struct TasksFlavour {
  static constexpr bool kIsTrace = std::is_same_v<TasksDomain, rcu::tasks_trace_domain>;
  static constexpr bool kIsRude = std::is_same_v<TasksDomain, rcu::tasks_rude_domain>;
  static constexpr const char* kName =
      kIsTrace ? "tasks-trace" : (kIsRude ? "tasks-rude" : "tasks");
  static constexpr bool kIsRcuDomain = false;
  static constexpr bool kCallEndsSections = kIsRude;
  using Domain = TasksDomain;
  struct GracePeriod {
    const char* name;
    void (*run)(Domain& domain, Random& random);
  };

  struct NoTask {};
  template <class Any>
  struct TaskOf {
    using type = typename Any::task;
  };
  class Reader {
   public:
    Reader(Domain&, unsigned) {}
    const char* name() const noexcept { return kName; }
    void enter(Random&) noexcept {
      if constexpr (kIsTrace) rcu::tasks_trace_lock();
    }
    void leave(Random&) noexcept {
      if constexpr (kIsTrace) {
        rcu::tasks_trace_unlock();
      } else if constexpr (kIsRude) {
        rcu::tasks_rude_quiescent();
      } else {
        rcu::tasks_quiescent();
      }
    }

   private:
    [[no_unique_address]]
    typename std::conditional_t<kIsTrace, std::type_identity<NoTask>, TaskOf<Domain>>::type task_;
  };

  static std::span<const GracePeriod> grace_periods() {
    static constexpr std::array kAll{
        GracePeriod{"synchronize", [](Domain& domain, Random&) { domain.synchronize(); }}};
    return kAll;
  }
  static void call(Domain& domain, rcu::callback_head& head,
                   void (*function)(rcu::callback_head*) noexcept) noexcept {
    domain.call(head, function);
  }
  static void post(Domain& domain, Ledger& ledger, Random&) {
    domain.call([parcel = std::make_unique<Parcel>(ledger)] {});
  }
  static void barrier(Domain& domain) noexcept { domain.barrier(); }
};

}  // namespace tandem::rcutorture
