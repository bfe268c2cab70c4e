// SPDX-License-Identifier: Apache-2.0
#include "tandem/base/planted_fault.hpp"
#include "tandem/iommu/detail/state.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::iommu {

/// What is in flight ends first, then what it may still have changed is cleared: transactions find
/// the new ddtp and empty caches; a command ends before its queue is off; a record that finds its
/// queue off is dropped and raises nothing; the grace period outlasts accesses through translations
/// made before, and those that outlast it have the time of an invalidation to end; and a message
/// that was not yet on its way when ipsr is cleared stays unsent.
void Iommu::State::reset() {
  {
    const MutexLock lock(ddtp_mutex);
    ddtp.store(Ddtp::make(config.options.reset_mode), std::memory_order_release);
    if (!planted_fault("iommu-reset-keeps-caches")) generations.invalidate_all();
  }
  commands.reset();
  faults.reset();
  page_requests.reset();
  if (!planted_fault("iommu-reset-skip-wait")) rcu::rcu_synchronize();
  if (!planted_fault("iommu-reset-leaves-accesses")) {
    signal_if(commands.finish_earlier_accesses(), Interrupt::kCommandQueue);
  }
  config.fctl.store(config.initial_fctl(), std::memory_order_release);
  monitor.reset();
  tell_overflow();
  debug.reset();
  qosid.store(0, std::memory_order_relaxed);
  interrupts.reset();
  interrupts.update_wires();
  interrupts.wait_until_sent();
}

}  // namespace tandem::iommu
