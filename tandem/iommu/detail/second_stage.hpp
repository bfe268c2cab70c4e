// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "tandem/base/result.hpp"
#include "tandem/iommu/detail/page_table.hpp"

namespace tandem::iommu::detail {

/// A device's second stage: from guest physical to supervisor physical addresses.
struct SecondStage {
  Scheme scheme;
  std::uint64_t root_ppn = 0;  ///< of a table of 16 KiB
  bool narrow = false;         ///< DC.tc.SXL: addresses of 34 bits, whatever the scheme has
  bool updates_ad = false;     ///< DC.tc.GADE

  bool is_bare() const { return scheme.is_bare(); }
  unsigned address_bits() const {
    return narrow ? std::min(kSv32x4.address_bits(), scheme.address_bits()) : scheme.address_bits();
  }
};

/// The second stage that `iohgatp` selects.
inline SecondStage make_second_stage(const Config& config, const DeviceContext& context) {
  using Iohgatp = DeviceContext::Iohgatp;
  SecondStage stage;
  stage.scheme = scheme_of(static_cast<SecondStageMode>(Iohgatp::Mode::get(context.iohgatp)),
                           config.has_32_bit_guests());
  stage.scheme.big_endian = config.big_endian();
  stage.narrow = context.has_32_bit_addresses();
  stage.root_ppn = Iohgatp::Ppn::get(context.iohgatp);
  stage.updates_ad = context.updates_guest_accessed_dirty();
  return stage;
}

/// Why the second stage does not give an address.
enum class GuestFault : std::uint8_t { kPageFault, kAccessFault, kCorrupt };

/// Where a stage is Bare it is one page of this size ("recommended to be large", §3.6), which
/// allows everything.
inline constexpr unsigned kBareLog2Size = 30;
inline constexpr std::uint64_t kAllowsAll = Pte::V::kMask | Pte::R::kMask | Pte::W::kMask |
                                            Pte::X::kMask | Pte::U::kMask | Pte::A::kMask |
                                            Pte::D::kMask;

/// A guest page and what may be done in it.
struct GuestPage {
  PhysAddr address;             ///< of the requested byte
  std::uint8_t log2_size = 12;  ///< ≥ 12
  std::uint64_t pte = 0;        ///< the leaf; where the stage is Bare, one that allows everything
};

/// Of an entry of the second stage that memory does not give.
constexpr GuestFault guest_fault(memory::Fault fault) {
  return fault == memory::Fault::kPoisoned ? GuestFault::kCorrupt : GuestFault::kAccessFault;
}

/// Sets in the leaf `pte` at `at` what makes it `used`. Returns: false when software changed the
/// entry.
Result<bool, GuestFault> update_guest_leaf(TableReader& reader, const SecondStage& stage,
                                           PhysAddr at, std::uint64_t pte, std::uint64_t used);

/// Translates a guest physical address. `types`: what the leaf has to allow, nothing for an ATS
/// translation request; `sets_dirty`: a write, or such a request without NW.
///
/// Spec: RISC-V Privileged specification, "Guest-Physical Address Translation"; IOMMU §3.3
///       "Process to translate an IOVA", §3.4.
[[gnu::always_inline]] inline Result<GuestPage, GuestFault> translate_guest(
    TableReader& reader, const Config& config, const SecondStage& stage, std::uint64_t address,
    AccessTypes types, bool sets_dirty) {
  if (stage.is_bare()) return GuestPage{PhysAddr{address}, kBareLog2Size, kAllowsAll};
  const Unexpected fault{GuestFault::kPageFault};
  if (address >> stage.address_bits() != 0) return fault;

  std::uint64_t table = stage.root_ppn << kPageShift;
  unsigned level = stage.scheme.levels - 1U;
  while (true) {
    const PhysAddr at{table + stage.scheme.offset(level, address)};
    ++reader.loads.second_stage;
    const auto loaded = load_entry(reader, stage.scheme, at);
    if (!loaded) return Unexpected{guest_fault(loaded.error())};
    const std::uint64_t pte = *loaded;
    const EntryKind kind = kind_of(config, pte, level);
    if (kind == EntryKind::kInvalid) return fault;
    if (kind == EntryKind::kPointer) {
      table = Pte::Ppn::get(pte) << kPageShift;
      --level;
      continue;
    }

    // The privilege is always a user's.
    if (!types.allowed_by(pte) || Pte::U::get(pte) == 0 || !is_aligned(stage.scheme, pte, level)) {
      return fault;
    }
    const bool dirty = sets_dirty && Pte::W::get(pte) != 0;
    const std::uint64_t used = pte | Pte::A::kMask | (dirty ? Pte::D::kMask : 0);
    if (used != pte) [[unlikely]] {
      const auto updated = update_guest_leaf(reader, stage, at, pte, used);
      if (!updated) return Unexpected{updated.error()};
      if (!*updated) continue;  // judge the new one
    }
    const unsigned log2_size = log2_size_of(stage.scheme, used, level);
    return GuestPage{address_in_page(Pte::Ppn::get(used), log2_size, address),
                     static_cast<std::uint8_t>(log2_size), used};
  }
}

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
