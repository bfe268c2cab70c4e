// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/second_stage.hpp"

namespace tandem::iommu::detail {
WalkFault walk_fault(GuestFault why, Access access, std::uint64_t address, bool implicit,
                     bool write) {
  switch (why) {
    case GuestFault::kAccessFault:
      return {access_fault(access)};
    case GuestFault::kCorrupt:
      return {Cause::kPageTableCorrupt};
    case GuestFault::kPageFault:
      break;
  }
  return {guest_page_fault(access), guest_fault_value(address, implicit, write)};
}

Result<bool, GuestFault> update_guest_leaf(TableReader& reader, const SecondStage& stage,
                                           PhysAddr at, std::uint64_t pte, std::uint64_t used) {
  if (!stage.updates_ad) return Unexpected{GuestFault::kPageFault};
  ++reader.loads.second_stage;
  const auto update = update_entry(reader, stage.scheme, at, pte, used);
  if (!update) return Unexpected{guest_fault(update.error())};
  if (*update == Update::kGivenUp) return Unexpected{GuestFault::kPageFault};
  return *update == Update::kMade;
}

}  // namespace tandem::iommu::detail
