// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/msi_translate.hpp"

#include "tandem/iommu/detail/page_table.hpp"

namespace tandem::iommu::detail {
namespace {

using memory::PhysAddr;

Result<MsiPte, Cause> load_msi_entry(TableReader& reader, const Config& config,
                                     const ExtendedDeviceContext& context, std::uint64_t address) {
  const std::uint64_t number = extract(address >> kPageShift, context.msi_addr_mask);
  const std::uint64_t table = ExtendedDeviceContext::Msiptp::Ppn::get(context.msiptp) << kPageShift;
  PhysAddr at{table |
              number * sizeof(MsiPte)};  // a number wider than the table's alignment is ored
  MsiPte entry;
  for (std::uint64_t& word : entry.words) {  // V first: whoever sets it stores it last
    const auto loaded = reader.load64(at, std::memory_order_acquire);
    if (!loaded) {
      return Unexpected{load_cause(loaded.error(), Cause::kMsiPteLoadFault, Cause::kMsiPtCorrupt)};
    }
    word = in_byte_order(*loaded, config.big_endian());
    at = at.plus(sizeof word);
  }
  return entry;
}

Result<MsiTarget, Cause> to_controller(const MsiPte& entry, std::uint64_t address) {
  const std::uint64_t word = entry.words[0];
  if ((word & MsiPte::Basic::kReserved) != 0) return Unexpected{Cause::kMsiPteMisconfigured};
  return MsiTarget{
      PhysAddr{MsiPte::Basic::Ppn::get(word) << kPageShift | (address & (kPageBytes - 1))}, {}};
}

Result<MsiTarget, Cause> to_memory(const MsiPte& entry, bool hides_faults) {
  using Entry = MsiPte::Mrif;
  const auto [word, notice] = entry.words;
  if ((word & Entry::kReserved) != 0 || (notice & Entry::kReserved1) != 0) {
    return Unexpected{Cause::kMsiPteMisconfigured};
  }
  Mrif mrif;
  mrif.file = PhysAddr{Entry::Address::get(word) << 9};
  mrif.notice = PhysAddr{Entry::Nppn::get(notice) << kPageShift};
  mrif.notice_data =
      static_cast<std::uint32_t>(Entry::NidHigh::get(notice) << 10 | Entry::NidLow::get(notice));
  mrif.hides_faults = hides_faults;
  return MsiTarget{kNowhere, mrif};
}

}  // namespace

Result<MsiTarget, Cause> translate_msi(TableReader& reader, const Config& config,
                                       const ExtendedDeviceContext& context,
                                       std::uint64_t address) {
  const auto entry = load_msi_entry(reader, config, context, address);
  if (!entry) return Unexpected{entry.error()};
  if (!entry->valid()) return Unexpected{Cause::kMsiPteNotValid};
  if (!entry->is_custom()) {
    if (entry->mode() == MsiPte::Mode::kBasic) return to_controller(*entry, address);
    if (entry->mode() == MsiPte::Mode::kMrif && config.has<Capabilities::MsiMrif>()) {
      return to_memory(*entry, context.hides_translation_faults());
    }
  }
  return Unexpected{Cause::kMsiPteMisconfigured};
}

}  // namespace tandem::iommu::detail
