// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "tandem/base/result.hpp"
#include "tandem/iommu/detail/page_table.hpp"

namespace tandem::iommu::detail {

/// A device's second stage: from guest physical to supervisor physical addresses.
struct SecondStage {
  Scheme scheme;
  std::uint64_t root_ppn = 0;  ///< of a table of 16 KiB
  bool updates_ad = false;     ///< DC.tc.GADE
  unsigned* walks = nullptr;   ///< counts them

  bool is_bare() const { return scheme.is_bare(); }
};

/// The second stage that `iohgatp` selects. `walks`: what is to count them.
SecondStage make_second_stage(const DeviceContext& context, unsigned* walks = nullptr);

/// Why the second stage does not give an address.
enum class GuestFault : std::uint8_t { kPageFault, kAccessFault, kCorrupt };

/// A guest page and what may be done in it.
struct GuestPage {
  PhysAddr address;             ///< of the requested byte
  std::uint8_t log2_size = 12;  ///< ≥ 12
  std::uint64_t pte = 0;        ///< the leaf; where the stage is Bare, one that allows everything
};

/// Translates a guest physical address. `types`: what the leaf has to allow, nothing for an ATS
/// translation request; `sets_dirty`: a write, or such a request without NW.
///
/// Spec: RISC-V Privileged specification, "Guest-Physical Address Translation"; IOMMU §3.3
///       "Process to translate an IOVA", §3.4.
Result<GuestPage, GuestFault> translate_guest(TableReader& reader, const Config& config,
                                              const SecondStage& stage, std::uint64_t address,
                                              AccessTypes types, bool sets_dirty);

/// The same for the address of an entry of a process directory or first stage.
inline Result<GuestPage, GuestFault> translate_implicit(TableReader& reader, const Config& config,
                                                        const SecondStage& stage,
                                                        std::uint64_t address, bool write) {
  return translate_guest(reader, config, stage, address,
                         AccessTypes{.read = !write, .write = write}, write);
}

/// iotval2 of a guest-page fault at `address`. `implicit`: the access was one to an entry.
/// Spec: §4.2 "Fault/Event-Queue (FQ)".
constexpr std::uint64_t guest_fault_value(std::uint64_t address, bool implicit, bool write) {
  return (address & ~std::uint64_t{3}) | (implicit ? 1U | (write ? 2U : 0U) : 0U);
}

/// What stops a walk for whose sake the second stage was asked.
WalkFault walk_fault(GuestFault why, Access access, std::uint64_t address, bool implicit,
                     bool write);

}  // namespace tandem::iommu::detail
