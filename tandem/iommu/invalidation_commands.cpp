// SPDX-License-Identifier: Apache-2.0
/// IOTINVAL and IODIR.
#include "tandem/base/planted_fault.hpp"
#include "tandem/iommu/detail/command_queue.hpp"
#include "tandem/iommu/detail/directory.hpp"

namespace tandem::iommu::detail {

/// Spec: §4.1.1 "IOMMU Page-Table cache invalidation commands", §9.2 "Non-leaf PTE Invalidation
///       Extension", §9.3 "Address Range Invalidation Extension".
CommandQueue::Step CommandQueue::iotinval_locked(const Command& command) {
  const auto [word, target] = command.words;
  if ((word & Iotinval::kReserved0) != 0 || (target & Iotinval::kReserved1) != 0) {
    return Step::kIllegal;
  }
  if (Iotinval::Nl::get(word) != 0 && !config_.has<Capabilities::Nl>()) return Step::kIllegal;
  if (Iotinval::S::get(target) != 0 && !config_.has<Capabilities::S>()) return Step::kIllegal;
  const std::uint64_t function = Command::Func3::get(word);
  const bool has_pscid = Iotinval::Pscv::get(word) != 0;
  if (function > Iotinval::kGvma || (function == Iotinval::kGvma && has_pscid)) {
    return Step::kIllegal;
  }

  invalidations_.fetch_add(1, std::memory_order_relaxed);
  accesses_to_wait_for_ = true;
  if (planted_fault("iommu-skip-invalidation")) return Step::kDone;
  AddressSpaceId space;
  space.pscid = static_cast<std::uint32_t>(Iotinval::Pscid::get(word));
  if (Iotinval::Gv::get(word) != 0) {
    space.gscid = static_cast<std::uint32_t>(Iotinval::Gscid::get(word));
  }
  if (function == Iotinval::kGvma && !space.gscid) {
    generations_.invalidate_all_guests();
  } else if (!has_pscid) {
    // Of one address or of all, in every address space. What a guest's address is for a device is
    // not known.
    generations_.invalidate_domain(space.gscid);
  } else if (Iotinval::Av::get(word) == 0 || Iotinval::Nl::get(word) != 0) {
    // What other translations were made from a non-leaf entry is not known either.
    generations_.invalidate_address_space(space);
  } else {
    const std::uint64_t page = Iotinval::Addr::get(target);
    const unsigned log2_pages = Iotinval::S::get(target) != 0 ? napot_log2_pages(page) : 0;
    generations_.invalidate_range(space, Iova{page << kPageShift}, kPageShift + log2_pages);
  }
  return Step::kDone;
}

/// Spec: §4.1.3 "IOMMU directory cache invalidation commands". What was made through a context that
/// is named goes with it.
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
      has_device ? generations_.invalidate_device(DeviceId{device}) : generations_.invalidate_all();
      break;
    case Iodir::kInvalPdt:
      if (!has_device || !process_id_exists(config_, process)) return Step::kIllegal;
      generations_.invalidate_process(DeviceId{device}, process);
      break;
    default:
      return Step::kIllegal;
  }
  invalidations_.fetch_add(1, std::memory_order_relaxed);
  accesses_to_wait_for_ = true;
  return Step::kDone;
}

}  // namespace tandem::iommu::detail
