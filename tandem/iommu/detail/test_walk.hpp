// SPDX-License-Identifier: Apache-2.0
/// What the tests of the first stage's walk have in common.
#pragma once

#include "tandem/iommu/detail/test_board.hpp"
#include "tandem/iommu/detail/walk.hpp"

namespace tandem::iommu::detail {

/// Walks `walk` for an access of kind `access`.
inline Result<Translation, Cause> walked(memory::Memory& memory, const Config& config, Walk& walk,
                                         Access access) {
  walk.access = access;
  walk.wants_write = access == Access::kWrite;
  TableReader reader(memory);
  const auto found = walk_first_stage(reader, config, walk);
  if (!found) return Unexpected{found.error().cause};
  return *found;
}

}  // namespace tandem::iommu::detail
