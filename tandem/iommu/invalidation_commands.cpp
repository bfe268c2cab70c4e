// SPDX-License-Identifier: Apache-2.0
/// IOTINVAL and IODIR.
#include "tandem/base/planted_fault.hpp"
#include "tandem/iommu/detail/command_queue.hpp"
#include "tandem/iommu/detail/directory.hpp"

namespace tandem::iommu::detail {

/// Spec: §4.1.1 "IOMMU Page-Table cache invalidation commands". NL and S stay reserved without
/// their capabilities (§9.2, §9.3).
CommandQueue::Step CommandQueue::iotinval_locked(const Command& command) {
  const auto [word, target] = command.words;
  constexpr std::uint64_t kReserved0 = Iotinval::kReserved0 | Iotinval::Nl::kMask;
  constexpr std::uint64_t kReserved1 = Iotinval::kReserved1 | Iotinval::S::kMask;
  if ((word & kReserved0) != 0 || (target & kReserved1) != 0) return Step::kIllegal;
  const std::uint64_t function = Command::Func3::get(word);
  const bool has_pscid = Iotinval::Pscv::get(word) != 0;
  if (function > Iotinval::kGvma || (function == Iotinval::kGvma && has_pscid)) {
    return Step::kIllegal;
  }

  invalidations_.fetch_add(1, std::memory_order_relaxed);
  accesses_to_wait_for_ = true;
  if (planted_fault("iommu-skip-invalidation")) return Step::kDone;
  const auto gscid = static_cast<std::uint32_t>(Iotinval::Gscid::get(word));
  const bool of_guest = Iotinval::Gv::get(word) != 0;
  if (function == Iotinval::kGvma || !has_pscid) {
    // Of one address or of all, the entries of every address space. What a guest's address is for
    // a device is not known.
    of_guest ? iotlb_.invalidate_guest(gscid) : iotlb_.invalidate_all();
    return Step::kDone;
  }
  AddressSpaceId space;
  space.pscid = static_cast<std::uint32_t>(Iotinval::Pscid::get(word));
  if (of_guest) space.gscid = gscid;
  if (Iotinval::Av::get(word) == 0) {
    iotlb_.invalidate_address_space(space);
  } else {
    iotlb_.invalidate_address(space, Iova{Iotinval::Addr::get(target) << kPageShift});
  }
  return Step::kDone;
}

/// Spec: §4.1.3 "IOMMU directory cache invalidation commands". Contexts are cached only as part of
/// the translations made through them.
CommandQueue::Step CommandQueue::iodir_locked(const Command& command) {
  const auto [word, reserved] = command.words;
  if ((word & Iodir::kReserved0) != 0 || reserved != 0) return Step::kIllegal;
  const bool has_device = Iodir::Dv::get(word) != 0;
  const auto device = static_cast<std::uint32_t>(Iodir::Did::get(word));
  const auto process = static_cast<std::uint32_t>(Iodir::Pid::get(word));
  const unsigned levels = ddt_levels(ddtp_.load(std::memory_order_acquire));
  if (has_device && levels != 0 && !device_id_fits(config_, levels, device)) return Step::kIllegal;
  switch (Command::Func3::get(word)) {
    case Iodir::kInvalDdt:
      if (process != 0) return Step::kIllegal;
      iotlb_.invalidate_all();
      break;
    case Iodir::kInvalPdt:
      if (!has_device || !process_id_exists(config_, process)) return Step::kIllegal;
      iotlb_.invalidate_process(DeviceId{device}, process);
      break;
    default:
      return Step::kIllegal;
  }
  invalidations_.fetch_add(1, std::memory_order_relaxed);
  accesses_to_wait_for_ = true;
  return Step::kDone;
}

}  // namespace tandem::iommu::detail
