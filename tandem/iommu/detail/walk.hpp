// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "tandem/base/result.hpp"
#include "tandem/iommu/detail/page_table.hpp"
#include "tandem/iommu/detail/second_stage.hpp"

namespace tandem::iommu::detail {

/// The first stage that a transaction's contexts select.
struct FirstStage {
  Scheme scheme;
  std::uint64_t root_ppn = 0;  ///< of guest memory where there is a second stage
  std::uint32_t pscid = 0;
  bool sum = false;  ///< PC.ta.SUM
};

/// One first-stage translation to make, not by a Bare stage.
struct Walk : FirstStage {
  Iova at;
  Access access = Access::kRead;
  /// An ATS translation request: missing permissions are part of the answer, not a fault.
  bool report_permissions = false;
  bool wants_write = false;  ///< a write, or an ATS translation request without NW
  bool supervisor = false;   ///< the transaction requests supervisor privilege
  bool updates_ad = false;   ///< DC.tc.SADE
  SecondStage second_stage;  ///< maps the tables
};

/// The table of the first stage that holds the leaf of a page of the smallest sizes.
struct LastTable {
  PhysAddr page;        ///< where it is: through the second stage
  bool global = false;  ///< G of an entry above it
};

/// Walks the page table. The translation's permissions are those of the request's privilege;
/// writable only if the entry's D bit is set, so that a cached copy never skips setting it.
/// `last`: where to put the table that held the leaf, if that was one of the last level's.
///
/// Errors: page_fault(access), access_fault(access), guest_page_fault(access).
/// Spec:   RISC-V Privileged specification, "Virtual Address Translation Process", "Two-Stage
///         Address Translation"; IOMMU §3.4 "IOMMU updating of PTE accessed (A) and dirty (D)
///         updates".
Result<Translation, WalkFault> walk_first_stage(TableReader& reader, const Config& config,
                                                const Walk& walk,
                                                std::optional<LastTable>* last = nullptr);

/// The same from the last table on. Returns: nothing where anything else than a translation comes
/// of the leaf as it is; then the walk from the root says what.
std::optional<Translation> walk_last_table(TableReader& reader, const Config& config,
                                           const Walk& walk, const LastTable& table);

}  // namespace tandem::iommu::detail
