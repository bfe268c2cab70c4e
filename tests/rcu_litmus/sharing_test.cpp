// SPDX-License-Identifier: Apache-2.0
// Which grace period may serve a call: one that began after it, also when another caller runs it.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/stats.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::Occupant;
using detail::Waiter;

// [saferecl.rcu.domain.func]/2. A grace period that began before the update does not cover sections
// that began between the two.
TEST(RcuSharing, AGracePeriodThatBeganBeforeTheUpdateServesNobodyElse) {
  for (int round = 0; round < 10; ++round) {
    rcu_domain domain;
    Occupant oldest(domain);
    const Waiter earlier([&] { rcu_synchronize(domain); });
    detail::wait_until([&] { return stats(domain).waits != 0; });  // it has begun, for `oldest`
    Occupant between(domain);
    const Waiter later([&] { rcu_synchronize(domain); });
    std::this_thread::sleep_for(5ms);  // it waits for `earlier`
    oldest.leave();
    earlier.wait();
    std::this_thread::sleep_for(5ms);
    EXPECT_FALSE(later.returned()) << "although a section from before the call lasts";
    between.leave();
  }
}

}  // namespace
}  // namespace tandem::rcu
