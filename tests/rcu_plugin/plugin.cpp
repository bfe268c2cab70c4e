// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <mutex>

#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/srcu.hpp"

namespace {

using namespace tandem::rcu;

std::atomic<int> deleted{0};
struct Object : rcu_obj_base<Object> {
  ~Object() { ++deleted; }
};

/// Its destructor is among the last things a thread does.
struct OfThread {
  ~OfThread() {
    const std::scoped_lock section(rcu_default_domain());
    (new Object)->retire();
  }
  int used = 0;
};
thread_local OfThread of_thread;

}  // namespace

/// Uses everything that leaves something behind: readers, queues, workers.
extern "C" int plugin_use() {
  rcu_domain further;
  srcu_domain sleepable;
  {
    const std::scoped_lock sections(rcu_default_domain(), further);
    const srcu_section section(sleepable);
    (new Object)->retire();
    (new Object)->retire({}, further);
  }
  rcu_synchronize();
  rcu_barrier();
  rcu_barrier(further);
  return deleted.load();
}

/// A thread_local, too: it keeps the module while the thread lives.
extern "C" int plugin_use_in_thread_local() {
  ++of_thread.used;
  return plugin_use();
}
