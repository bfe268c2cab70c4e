// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "tandem/base/planted_fault.hpp"
#include "tandem/iommu/detail/byte_order.hpp"
#include "tandem/iommu/detail/command_queue.hpp"
#include "tandem/iommu/detail/mrif.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::iommu::detail {

/// Spec: §4.1.2 "IOMMU Command-queue Fence commands".
///
/// Commands run in order, and all but ATS.INVAL to their end. So what is left to wait for are
/// accesses through translations made before, which run inside reader sections that the grace
/// period outlasts, or have been held in such a section to outlast it; and invalidation requests
/// that devices have not completed. For the latter two nobody blocks: the queue stays at the fence,
/// which is executed again when the last of them has ended.
CommandQueue::Step CommandQueue::iofence_locked(const Command& command) {
  const auto [word, target] = command.words;
  if ((word & Iofence::kReserved0) != 0 || (target & Iofence::kReserved1) != 0 ||
      Command::Func3::get(word) != Iofence::kC) {
    return Step::kIllegal;
  }
  if (Iofence::Wsi::get(word) != 0 && !config_.wire_interrupts()) return Step::kIllegal;
  const bool orders = Iofence::Pr::get(word) != 0 || Iofence::Pw::get(word) != 0;
  const bool skips_accesses = planted_fault("iommu-skip-fence-wait");
  const bool waits_for_accesses = std::exchange(accesses_to_wait_for_, false);
  if (waits_for_accesses && !skips_accesses) rcu::rcu_synchronize();
  const auto deadline = new_deadline();
  const bool none_held =
      planted_fault("iommu-fence-passes-access") || accesses_.none_void_or_wait(deadline);
  if (!none_held && deadline != ItagTable::TimePoint::max()) deadline_.tell(deadline);
  const bool none_outstanding =
      planted_fault("iommu-fence-passes-invalidation") || itags_.none_outstanding_or_wait();
  if (!none_held || !none_outstanding) return Step::kWait;
  // What a device did before it completed an invalidation is ordered as well.
  if (orders && !waits_for_accesses && !skips_accesses) rcu::rcu_synchronize();
  if (take_timed_out()) return Step::kTimeout;
  if (Iofence::Av::get(word) != 0) {
    const PhysAddr at{Iofence::Addr::get(target) << 2};
    const auto data = static_cast<std::uint32_t>(Iofence::Data::get(word));
    if (!store_message(memory_, at, in_byte_order(data, config_.big_endian())))
      return Step::kMemoryFault;
  }
  if (Iofence::Wsi::get(word) != 0) set_csr_locked(Cqcsr::FenceWIp::kMask);
  return Step::kDone;
}

}  // namespace tandem::iommu::detail
