// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "tandem/base/result.hpp"
#include "tandem/iommu/detail/config.hpp"
#include "tandem/iommu/iommu.hpp"
#include "tandem/memory/reader.hpp"

/// What the page tables of both stages have in common.
///
/// Spec: RISC-V Privileged specification, "Virtual Address Translation Process", "Svnapot",
///       "Svpbmt", "Svrsw60t59b".
namespace tandem::iommu::detail {

/// How one transaction reads all its tables and directories: in one reader section.
using TableReader = memory::Memory::Reader;

/// How a paging scheme divides an address. No levels: Bare.
struct Scheme {
  std::uint8_t levels = 0;
  std::uint8_t widened = 0;  ///< bits by which the root's index is wider: 2 in a second stage

  constexpr bool is_bare() const { return levels == 0; }
  constexpr unsigned address_bits() const {
    return kPageShift + levels * Pte::kIndexBits + widened;
  }
  constexpr std::uint64_t index(unsigned level, std::uint64_t address) const {
    const unsigned bits = Pte::kIndexBits + (level + 1U == levels ? widened : 0);
    return address >> (kPageShift + level * Pte::kIndexBits) & ((std::uint64_t{1} << bits) - 1);
  }
};

constexpr Scheme scheme_of(FirstStageMode mode) {
  return {static_cast<std::uint8_t>(first_stage_levels(mode)), 0};
}

constexpr Scheme scheme_of(SecondStageMode mode) {
  return {static_cast<std::uint8_t>(second_stage_levels(mode)), 2};
}

/// What an entry at some level is.
enum class EntryKind : std::uint8_t {
  kInvalid,  ///< not valid, or with a reserved bit or encoding
  kPointer,  ///< to the table of the next level
  kLeaf,
};
EntryKind kind_of(const Config& config, std::uint64_t pte, unsigned level);

/// Whether a leaf's page number is aligned to the size that its level, or N, gives.
bool is_aligned(std::uint64_t pte, unsigned level);

/// Of the page that a leaf maps.
constexpr unsigned log2_size_of(std::uint64_t pte, unsigned level) {
  return kPageShift + (Pte::N::get(pte) != 0 ? Pte::kNapotBits : level * unsigned{Pte::kIndexBits});
}

/// Where `at` lies in the page of 2^log2_size bytes that begins in page `ppn`; lower bits of `ppn`
/// do not matter.
constexpr PhysAddr address_in_page(std::uint64_t ppn, unsigned log2_size, std::uint64_t at) {
  const std::uint64_t offset = (std::uint64_t{1} << log2_size) - 1;
  return PhysAddr{((ppn << kPageShift) & ~offset) | (at & offset)};
}

/// Whether an entry allows all of the access types asked for.
struct AccessTypes {
  bool read = false;
  bool write = false;
  bool execute = false;

  static constexpr AccessTypes of(Access access) {
    return {access == Access::kRead, access == Access::kWrite, access == Access::kExecute};
  }
  constexpr bool allowed_by(std::uint64_t pte) const {
    return (!read || Pte::R::get(pte) != 0) && (!write || Pte::W::get(pte) != 0) &&
           (!execute || Pte::X::get(pte) != 0);
  }
};

/// The page fault, guest-page fault or access fault of the original access type.
Cause page_fault(Access access);
Cause guest_page_fault(Access access);
Cause access_fault(Access access);

/// The cause of an entry of a table that memory did not give: a poisoned one has a cause of its
/// own. Spec: §8.4 "Reliability, Availability, and Serviceability (RAS)".
constexpr Cause load_cause(memory::Fault fault, Cause access_fault, Cause corrupt) {
  return fault == memory::Fault::kPoisoned ? corrupt : access_fault;
}

/// Why a walk stopped.
struct WalkFault {
  Cause cause{};
  std::uint64_t iotval2 = 0;  ///< as its fault record will say
};

}  // namespace tandem::iommu::detail
