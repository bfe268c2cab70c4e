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

  bool valid() const { return V::get(words[0]) != 0; }
  bool is_custom() const { return C::get(words[0]) != 0; }
  Mode mode() const { return static_cast<Mode>(M::get(words[0])); }

  static constexpr MsiPte basic(std::uint64_t ppn) {
    return {{V::make(1) | M::make(static_cast<std::uint64_t>(Mode::kBasic)) | Basic::Ppn::make(ppn),
             0}};
  }
};
static_assert(sizeof(MsiPte) == 16);

}  // namespace tandem::iommu
