// SPDX-License-Identifier: Apache-2.0
/// Entries of MSI page tables.
///
/// Spec: RISC-V Advanced Interrupt Architecture, "IOMMU Support for MSIs to Virtual Machines", "MSI
///       page tables".
#pragma once

#include <array>
#include <cstdint>

#include "tandem/base/field.hpp"

namespace tandem::iommu {

/// One entry: where an interrupt file of a virtual machine is.
struct MsiPte {
  std::array<std::uint64_t, 2> words{};

  // First doubleword.
  using V = Field<0>;
  using M = Field<2, 1>;
  using C = Field<63>;  // custom use

  enum class Mode : std::uint8_t { kMrif = 1, kBasic = 3 };

  /// Basic translate mode: in an interrupt controller.
  struct Basic {
    using Ppn = Field<53, 10>;
    static constexpr std::uint64_t kReserved = Field<9, 3>::kMask | Field<62, 54>::kMask;
  };

  /// MRIF mode: in memory.
  struct Mrif {
    using Address = Field<53, 7>;  // [55:9]
    static constexpr std::uint64_t kReserved = Field<6, 3>::kMask | Field<62, 54>::kMask;
    // Second doubleword.
    using NidLow = Field<9, 0>;
    using Nppn = Field<53, 10>;
    using NidHigh = Field<60>;
    static constexpr std::uint64_t kReserved1 = Field<59, 54>::kMask | Field<63, 61>::kMask;
  };

  bool valid() const { return V::get(words[0]) != 0; }
  bool is_custom() const { return C::get(words[0]) != 0; }
  Mode mode() const { return static_cast<Mode>(M::get(words[0])); }

  static constexpr MsiPte basic(std::uint64_t ppn) {
    return {{V::make(1) | M::make(static_cast<std::uint64_t>(Mode::kBasic)) | Basic::Ppn::make(ppn),
             0}};
  }

  /// `address` of the file, 512-byte aligned; notices go to page `nppn` with data `nid`.
  static constexpr MsiPte mrif(std::uint64_t address, std::uint64_t nppn, std::uint32_t nid) {
    return {{V::make(1) | M::make(static_cast<std::uint64_t>(Mode::kMrif)) |
                 Mrif::Address::make(address >> 9),
             Mrif::NidLow::make(nid) | Mrif::Nppn::make(nppn) | Mrif::NidHigh::make(nid >> 10)}};
  }
};
static_assert(sizeof(MsiPte) == 16);

/// A memory-resident interrupt file: per 64 interrupt identities a doubleword of pending bits and
/// one of enable bits.
///
/// Spec: AIA, "Format of a memory-resident interrupt file".
struct MrifLayout {
  static constexpr std::uint32_t kIdentities = 2048;
  static constexpr std::uint64_t pending_offset(std::uint32_t identity) {
    return identity / 64 * 16;
  }
  static constexpr std::uint64_t pending_bit(std::uint32_t identity) {
    return std::uint64_t{1} << (identity % 64);
  }
};

}  // namespace tandem::iommu
