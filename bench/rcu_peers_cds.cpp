// SPDX-License-Identifier: Apache-2.0
// libcds' general-purpose RCU.
#include <cds/init.h>
#include <cds/urcu/general_buffered.h>

#include "bench/rcu_measure.hpp"

namespace tandem::bench {
namespace {

using Rcu = cds::urcu::gc<cds::urcu::general_buffered<>>;

/// The library and its one RCU; never taken down, as threads may still end.
void set_up() {
  static Rcu* const rcu = [] {
    cds::Initialize();
    return new Rcu;
  }();
  (void)rcu;
}

class CdsThread {
 public:
  CdsThread() {
    set_up();
    cds::threading::Manager::attachThread();
  }
  ~CdsThread() { cds::threading::Manager::detachThread(); }
  CdsThread(const CdsThread&) = delete;
  CdsThread& operator=(const CdsThread&) = delete;

  void lock() { Rcu::access_lock(); }
  void unlock() { Rcu::access_unlock(); }
  void synchronize() { Rcu::synchronize(); }
};

}  // namespace

RcuImplementation libcds_gpb() {
  return {.name = "libcds 2.3.3 general_buffered",
          .section_ns = section_ns<CdsThread>,
          .synchronize_ns = synchronize_ns<CdsThread>,
          .synchronize_rate = synchronize_rate<CdsThread>};
}

}  // namespace tandem::bench
