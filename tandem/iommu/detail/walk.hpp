// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "tandem/base/result.hpp"
#include "tandem/iommu/iommu.hpp"

namespace tandem::iommu::detail {

/// One first-stage translation to make.
struct Walk {
  FirstStageMode mode = FirstStageMode::kBare;  ///< not Bare
  std::uint64_t root_ppn = 0;
  Iova at;
  Access access = Access::kRead;
  /// An ATS translation request: missing permissions are part of the answer, not a fault.
  bool report_permissions = false;
  bool wants_write = false;  ///< a write, or an ATS translation request without NW
  bool supervisor = false;   ///< the transaction requests supervisor privilege
  bool sum = false;          ///< PC.ta.SUM
  bool updates_ad = false;   ///< DC.tc.SADE
};

/// The page fault, or access fault, of the original access type.
Cause page_fault(Access access);
Cause access_fault(Access access);

/// Walks the page table. The translation's permissions are those of the request's privilege;
/// writable only if the entry's D bit is set, so that a cached copy never skips setting it.
///
/// Errors: page_fault(access) or access_fault(access).
/// Spec:   RISC-V Privileged specification, "Virtual Address Translation Process"; IOMMU §3.4
///         "IOMMU updating of PTE accessed (A) and dirty (D) updates".
Result<Translation, Cause> walk_first_stage(const memory::Memory& memory, const Walk& walk);

}  // namespace tandem::iommu::detail
