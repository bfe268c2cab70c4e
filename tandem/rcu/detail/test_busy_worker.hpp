// SPDX-License-Identifier: Apache-2.0
/// For tests; not installed.
#pragma once

#include <atomic>

#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu::detail {

/// A worker that is busy with a deleter until this is gone.
class BusyWorker {
 public:
  explicit BusyWorker(rcu_domain& domain) : domain_(domain) {
    rcu_retire(
        this,
        [](BusyWorker* self) {
          self->busy_ = true;
          wait_until(self->leave_);
          self->left_ = true;
        },
        domain);
    wait_until(busy_);
  }
  ~BusyWorker() {
    leave_ = true;
    wait_until(left_);
    rcu_barrier(domain_);
  }
  BusyWorker(const BusyWorker&) = delete;
  BusyWorker& operator=(const BusyWorker&) = delete;

 private:
  rcu_domain& domain_;
  std::atomic<bool> busy_{false};
  std::atomic<bool> leave_{false};
  std::atomic<bool> left_{false};
};

}  // namespace tandem::rcu::detail
