// SPDX-License-Identifier: Apache-2.0
#include "tandem/base/planted_fault.hpp"
#include "tandem/iommu/detail/command_queue.hpp"
#include "tandem/iommu/detail/mrif.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::iommu::detail {

/// Spec: §4.1.2 "IOMMU Command-queue Fence commands".
///
/// Commands run in order and to their end, so what is left to wait for are accesses through
/// translations made before: they run inside reader sections, which the grace period outlasts.
CommandQueue::Step CommandQueue::iofence_locked(const Command& command) {
  const auto [word, target] = command.words;
  if ((word & Iofence::kReserved0) != 0 || (target & Iofence::kReserved1) != 0 ||
      Command::Func3::get(word) != Iofence::kC) {
    return Step::kIllegal;
  }
  if (Iofence::Wsi::get(word) != 0 && !config_.wire_interrupts()) return Step::kIllegal;
  const bool orders = Iofence::Pr::get(word) != 0 || Iofence::Pw::get(word) != 0;
  if (accesses_to_wait_for_ || orders) {
    if (!planted_fault("iommu-skip-fence-wait")) rcu::rcu_synchronize();
    accesses_to_wait_for_ = false;
  }
  if (invalidation_timed_out_) {
    invalidation_timed_out_ = false;
    return Step::kTimeout;
  }
  if (Iofence::Av::get(word) != 0) {
    const PhysAddr at{Iofence::Addr::get(target) << 2};
    const auto data = static_cast<std::uint32_t>(Iofence::Data::get(word));
    if (!store_message(memory_, at, data)) return Step::kMemoryFault;
  }
  if (Iofence::Wsi::get(word) != 0) set_csr_locked(Cqcsr::FenceWIp::kMask);
  return Step::kDone;
}

}  // namespace tandem::iommu::detail
