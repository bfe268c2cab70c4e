// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "tandem/base/result.hpp"
#include "tandem/iommu/detail/page_table.hpp"

namespace tandem::iommu::detail {

/// Whether a guest physical address is in the page of one of the guest's interrupt files.
///
/// Spec: §3.1.3.6 "MSI address mask (msi_addr_mask) and pattern (msi_addr_pattern)".
constexpr bool is_interrupt_file(const ExtendedDeviceContext& context, std::uint64_t address) {
  return context.has_msi_page_table() &&
         (((address >> kPageShift) ^ context.msi_addr_pattern) & ~context.msi_addr_mask) == 0;
}

/// The bits of `value` that `mask` selects, packed at the low end.
constexpr std::uint64_t extract(std::uint64_t value, std::uint64_t mask) {
  std::uint64_t packed = 0;
  for (unsigned to = 0; mask != 0; mask &= mask - 1, ++to) {
    packed |= ((value & mask & (~mask + 1)) != 0 ? std::uint64_t{1} : 0) << to;
  }
  return packed;
}

/// The largest naturally aligned range of at most 2^log2_size bytes around `address`, which is in
/// no page of an interrupt file, that holds none.
///
/// Spec: AIA, "Identification of page addresses of a VM's interrupt files": such pages are
///       translated by the MSI page table alone, whatever the second stage maps them by.
constexpr unsigned without_interrupt_files(const ExtendedDeviceContext& context,
                                           std::uint64_t address, unsigned log2_size) {
  if (!context.has_msi_page_table()) return log2_size;
  const std::uint64_t differs =
      ((address >> kPageShift) ^ context.msi_addr_pattern) & ~context.msi_addr_mask;
  // A range holds an interrupt file unless a bit above its size differs.
  const unsigned highest = 63U - static_cast<unsigned>(__builtin_clzll(differs | 1));
  return log2_size < highest + kPageShift ? log2_size : highest + kPageShift;
}

/// Nothing is there: past every physical address.
inline constexpr memory::PhysAddr kNowhere{std::uint64_t{1} << 63};

/// Where an interrupt file is.
struct MsiTarget {
  memory::PhysAddr address;  ///< kNowhere where the file is in memory
  std::optional<Mrif> mrif;
};

/// Where the interrupt file is whose page holds guest physical address `address`.
///
/// Errors: kMsiPteLoadFault, kMsiPteNotValid, kMsiPteMisconfigured.
/// Spec:   §3.3.3 "Process to translate addresses of MSIs". C = 1 is misconfigured.
Result<MsiTarget, Cause> translate_msi(TableReader& reader, const Config& config,
                                       const ExtendedDeviceContext& context, std::uint64_t address);

}  // namespace tandem::iommu::detail
