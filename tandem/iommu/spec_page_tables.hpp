// SPDX-License-Identifier: Apache-2.0
/// Entries of page tables, and how many levels the modes have.
///
/// Spec: RISC-V Privileged specification; RISC-V IOMMU, version 20260222.
#pragma once

#include <cstdint>

#include "tandem/base/field.hpp"
#include "tandem/iommu/spec_directories.hpp"

namespace tandem::iommu {

inline constexpr std::uint64_t kPageBytes = 4096;
inline constexpr unsigned kPageShift = 12;

/// A page-table entry of either stage. Those of Sv32 and Sv32x4 are the low half of one.
///
/// Spec: RISC-V Privileged specification, "Sv32: Page-Based 32-bit Virtual-Memory Systems", "Sv39:
///       Page-Based 39-bit Virtual-Memory System", "Svnapot", "Svpbmt", "Svrsw60t59b".
struct Pte {
  using V = Field<0>;
  using R = Field<1>;
  using W = Field<2>;
  using X = Field<3>;
  using U = Field<4>;
  using G = Field<5>;
  using A = Field<6>;
  using D = Field<7>;
  using Rsw = Field<9, 8>;
  using Ppn = Field<53, 10>;
  using Reserved = Field<58, 54>;
  using Rsw60t59b = Field<60, 59>;  // reserved without Svrsw60t59b
  using Pbmt = Field<62, 61>;
  using N = Field<63>;
  /// Of a pointer, beside what is reserved in leaves.
  static constexpr std::uint64_t kReservedInPointers =
      N::kMask | Pbmt::kMask | D::kMask | A::kMask | U::kMask | W::kMask;
  static constexpr unsigned kIndexBits = 9;
  static constexpr unsigned kSv32IndexBits = 10;
  static constexpr unsigned kNapotBits = 4;  // the one defined size: 64 KiB
  static constexpr std::uint64_t kNapotPattern = 0b1000;

  /// A pointer to the next level's table.
  static constexpr std::uint64_t make_pointer(std::uint64_t ppn) {
    return V::make(1) | Ppn::make(ppn);
  }
};

inline constexpr unsigned kSv32Levels = 2;

/// Levels of page table that `mode` walks, with GXL = 0 or SXL = 0; 0 when it is Bare or reserved.
constexpr unsigned second_stage_levels(SecondStageMode mode) {
  switch (mode) {
    case SecondStageMode::kSv39x4:
      return 3;
    case SecondStageMode::kSv48x4:
      return 4;
    case SecondStageMode::kSv57x4:
      return 5;
    case SecondStageMode::kBare:
      break;
  }
  return 0;
}
constexpr unsigned first_stage_levels(FirstStageMode mode) {
  switch (mode) {
    case FirstStageMode::kSv39:
      return 3;
    case FirstStageMode::kSv48:
      return 4;
    case FirstStageMode::kSv57:
      return 5;
    case FirstStageMode::kBare:
      break;
  }
  return 0;
}

}  // namespace tandem::iommu
