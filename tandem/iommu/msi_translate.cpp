// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/msi_translate.hpp"

namespace tandem::iommu::detail {
namespace {

using memory::Memory;
using memory::PhysAddr;

Result<MsiPte, Cause> load_entry(const Memory& memory, const ExtendedDeviceContext& context,
                                 std::uint64_t address) {
  const std::uint64_t number = extract(address >> kPageShift, context.msi_addr_mask);
  const std::uint64_t table = ExtendedDeviceContext::Msiptp::Ppn::get(context.msiptp) << kPageShift;
  PhysAddr at{table |
              number * sizeof(MsiPte)};  // a number wider than the table's alignment is ored
  MsiPte entry;
  for (std::uint64_t& word : entry.words) {  // V first: whoever sets it stores it last
    const auto loaded = memory.load64(at, std::memory_order_acquire);
    if (!loaded) return Unexpected{Cause::kMsiPteLoadFault};
    word = *loaded;
    at = at.plus(sizeof word);
  }
  return entry;
}

}  // namespace

Result<PhysAddr, Cause> translate_msi(const Memory& memory, const ExtendedDeviceContext& context,
                                      std::uint64_t address) {
  const auto entry = load_entry(memory, context, address);
  if (!entry) return Unexpected{entry.error()};
  if (!entry->valid()) return Unexpected{Cause::kMsiPteNotValid};
  const std::uint64_t word = entry->words[0];
  const bool basic = !entry->is_custom() && entry->mode() == MsiPte::Mode::kBasic;
  if (!basic || (word & MsiPte::Basic::kReserved) != 0) {
    return Unexpected{Cause::kMsiPteMisconfigured};
  }
  return PhysAddr{MsiPte::Basic::Ppn::get(word) << kPageShift | (address & (kPageBytes - 1))};
}

}  // namespace tandem::iommu::detail
