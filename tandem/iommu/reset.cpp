// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/state.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::iommu {

/// What is in flight ends first, then what it may still have changed is cleared: transactions find
/// the new ddtp and empty caches; a command ends before its queue is off; a record that finds its
/// queue off is dropped and raises nothing; the grace period outlasts accesses through translations
/// made before; and a message that was not yet on its way when ipsr is cleared stays unsent.
void Iommu::State::reset() {
  {
    const MutexLock lock(ddtp_mutex);
    ddtp.store(Ddtp::make(config.options.reset_mode), std::memory_order_release);
    generations.invalidate_all();
  }
  commands.reset();
  faults.reset();
  page_requests.reset();
  rcu::rcu_synchronize();
  config.fctl.store(detail::Config::initial_fctl(config.capabilities), std::memory_order_release);
  monitor.reset();
  debug.reset();
  qosid.store(0, std::memory_order_relaxed);
  interrupts.reset();
  interrupts.update_wires();
  interrupts.wait_until_sent();
}

}  // namespace tandem::iommu
