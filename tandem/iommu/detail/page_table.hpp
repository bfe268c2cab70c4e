// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "tandem/base/result.hpp"
#include "tandem/iommu/detail/byte_order.hpp"
#include "tandem/iommu/detail/config.hpp"
#include "tandem/iommu/iommu.hpp"
#include "tandem/memory/reader.hpp"

/// What the page tables of both stages have in common.
///
/// Spec: RISC-V Privileged specification, "Virtual Address Translation Process", "Svnapot",
///       "Svpbmt", "Svrsw60t59b".
namespace tandem::iommu::detail {

/// Entries loaded, of each kind of table: what events count as walks. The update of a leaf's A and
/// D bits, which compares it, loads it once more.
///
/// Spec: "Glossary", Walk; §6.23 "Performance-monitoring event selectors (iohpmevt1-31)".
struct TableLoads {
  unsigned device_directory = 0;
  unsigned process_directory = 0;
  unsigned first_stage = 0;
  unsigned second_stage = 0;
};

/// How one transaction reads all its tables and directories: in one reader section.
struct TableReader : memory::Memory::Reader {
  using Reader::Reader;
  /// How many more entries the transaction reads again because software changed them under the
  /// update of their A and D bits.
  unsigned repeats = 16;
  TableLoads loads;  ///< so far
};

/// How a paging scheme divides an address, and how its entries lie in memory. No levels: Bare.
struct Scheme {
  std::uint8_t levels = 0;
  std::uint8_t widened = 0;  ///< bits by which the root's index is wider: 2 in a second stage
  std::uint8_t index_bits = Pte::kIndexBits;
  bool big_endian = false;

  constexpr bool is_bare() const { return levels == 0; }
  /// Sv32 or Sv32x4: entries of four bytes.
  constexpr bool is_sv32() const { return index_bits == Pte::kSv32IndexBits; }
  constexpr unsigned entry_bytes() const { return is_sv32() ? 4 : 8; }
  constexpr unsigned address_bits() const { return log2_size(levels) + widened; }
  /// Of what an entry at `level` maps.
  constexpr unsigned log2_size(unsigned level) const { return kPageShift + level * index_bits; }
  /// Where in its table the entry for `address` lies.
  constexpr std::uint64_t offset(unsigned level, std::uint64_t address) const {
    const unsigned bits = index_bits + (level + 1U == levels ? widened : 0U);
    return (address >> log2_size(level) & ((std::uint64_t{1} << bits) - 1)) * entry_bytes();
  }
};

constexpr Scheme kSv32{kSv32Levels, 0, Pte::kSv32IndexBits};
constexpr Scheme kSv32x4{kSv32Levels, 2, Pte::kSv32IndexBits};

/// `sxl`: DC.tc.SXL, which Bare does not ask for.
constexpr Scheme scheme_of(FirstStageMode mode, bool sxl = false) {
  if (sxl && mode == FirstStageMode::kSv32) return kSv32;
  return {static_cast<std::uint8_t>(first_stage_levels(mode)), 0};
}

/// `gxl`: fctl.GXL.
constexpr Scheme scheme_of(SecondStageMode mode, bool gxl = false) {
  if (gxl && mode == SecondStageMode::kSv32x4) return kSv32x4;
  return {static_cast<std::uint8_t>(second_stage_levels(mode)), 2};
}

/// The entry at `at` of a table.
[[gnu::always_inline]] inline Result<std::uint64_t, memory::Fault> load_entry(TableReader& reader,
                                                                              const Scheme& scheme,
                                                                              PhysAddr at) {
  if (scheme.is_sv32()) [[unlikely]] {
    const auto loaded = reader.load32(at, std::memory_order_acquire);
    if (!loaded) return Unexpected{loaded.error()};
    return std::uint64_t{in_byte_order(*loaded, scheme.big_endian)};
  }
  const auto loaded = reader.load64(at, std::memory_order_acquire);
  if (!loaded) return Unexpected{loaded.error()};
  return in_byte_order(*loaded, scheme.big_endian);
}

/// What came of setting A and D bits in an entry.
enum class Update : std::uint8_t {
  kMade,
  kChanged,  ///< software changed the entry meanwhile, and nothing was written: read it again
  kGivenUp,  ///< likewise, and the transaction has read entries again often enough
};

/// Makes an entry that is `pte` into `used`.
///
/// The Privileged specification has a walk read the entry again whenever it changed, and sets no
/// bound; software that changes it for ever would keep the thread in its reader section, and with
/// it every fence. So there is one: what was given up is a page fault, as where the IOMMU does not
/// update the bits of that stage at all. Software has to handle such a fault of an entry without A
/// or D in any case, and no entry is written that was not judged.
/// Spec: Privileged specification, "Virtual Address Translation Process", step 9; IOMMU §3.4
///       "IOMMU updating of PTE accessed (A) and dirty (D) updates".
Result<Update, memory::Fault> update_entry(TableReader& reader, const Scheme& scheme, PhysAddr at,
                                           std::uint64_t pte, std::uint64_t used);

/// What an entry at some level is.
enum class EntryKind : std::uint8_t {
  kInvalid,  ///< not valid, or with a reserved bit or encoding
  kPointer,  ///< to the table of the next level
  kLeaf,
};

[[gnu::always_inline]] inline EntryKind kind_of(const Config& config, std::uint64_t pte,
                                                unsigned level) {
  constexpr std::uint64_t kReservedPbmt = 3;
  if (Pte::V::get(pte) == 0 || (pte & config.reserved_in_pte) != 0) return EntryKind::kInvalid;
  if (Pte::R::get(pte) == 0 && Pte::X::get(pte) == 0) {
    const bool reserved = (pte & Pte::kReservedInPointers) != 0;
    return level == 0 || reserved ? EntryKind::kInvalid : EntryKind::kPointer;
  }
  const bool reserved = (Pte::R::get(pte) == 0 && Pte::W::get(pte) != 0) ||
                        Pte::Pbmt::get(pte) == kReservedPbmt ||
                        (level != 0 && Pte::N::get(pte) != 0);
  return reserved ? EntryKind::kInvalid : EntryKind::kLeaf;
}

/// Whether a leaf's page number is aligned to the size that its level, or N, gives.
constexpr bool is_aligned(const Scheme& scheme, std::uint64_t pte, unsigned level) {
  const auto ppn = Pte::Ppn::get(pte);
  if (Pte::N::get(pte) != 0) {
    return (ppn & ((1U << Pte::kNapotBits) - 1)) == Pte::kNapotPattern;
  }
  return (ppn & ((std::uint64_t{1} << (level * scheme.index_bits)) - 1)) == 0;
}

/// Of the page that a leaf maps.
constexpr unsigned log2_size_of(const Scheme& scheme, std::uint64_t pte, unsigned level) {
  return Pte::N::get(pte) != 0 ? kPageShift + Pte::kNapotBits : scheme.log2_size(level);
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
