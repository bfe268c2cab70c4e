// SPDX-License-Identifier: Apache-2.0
// Which grace period may serve a call: one that began after it, also when another caller runs it.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;

/// A thread that is in a section from the construction to leave().
class Occupant {
 public:
  explicit Occupant(rcu_domain& domain)
      : thread_([this, &domain] {
          domain.lock();
          inside_ = true;
          inside_.notify_all();
          leave_.wait(false);
          domain.unlock();
        }) {
    inside_.wait(false);
  }
  ~Occupant() { leave(); }
  void leave() {
    leave_ = true;
    leave_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::atomic<bool> inside_{false};
  std::atomic<bool> leave_{false};
  std::thread thread_;
};

/// A thread in rcu_synchronize().
class Synchronizer {
 public:
  explicit Synchronizer(rcu_domain& domain)
      : thread_([this, &domain] {
          rcu_synchronize(domain);
          returned_ = true;
          returned_.notify_all();
        }) {}
  ~Synchronizer() { wait(); }
  bool returned() const { return returned_; }
  void wait() {
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::atomic<bool> returned_{false};
  std::thread thread_;
};

// [saferecl.rcu.domain.func]/2. A grace period that began before the update does not cover sections
// that began between the two.
TEST(RcuSharing, AGracePeriodThatBeganBeforeTheUpdateServesNobodyElse) {
  for (int round = 0; round < 10; ++round) {
    rcu_domain domain;
    Occupant oldest(domain);
    Synchronizer earlier(domain);
    std::this_thread::sleep_for(5ms);  // it has begun, and waits for `oldest`
    Occupant between(domain);
    Synchronizer later(domain);
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
