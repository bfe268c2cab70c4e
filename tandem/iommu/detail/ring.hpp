// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "tandem/iommu/iommu.hpp"

namespace tandem::iommu::detail {

/// A 32-bit ring index register's mask for a queue base register.
inline std::uint32_t ring_mask(std::uint64_t base) {
  const auto log2_entries = static_cast<unsigned>(QueueBase::Log2SizeMinus1::get(base)) + 1;
  return static_cast<std::uint32_t>((std::uint64_t{1} << log2_entries) - 1);
}

/// Where entry `index` of `entry_bytes` lies.
inline PhysAddr ring_entry(std::uint64_t base, std::uint32_t index, std::size_t entry_bytes) {
  return PhysAddr{(QueueBase::Ppn::get(base) << kPageShift) + std::uint64_t{index} * entry_bytes};
}

/// The bits of cqb, fqb and pqb that exist.
inline constexpr std::uint64_t kQueueBaseMask =
    QueueBase::Log2SizeMinus1::kMask | QueueBase::Ppn::kMask;

}  // namespace tandem::iommu::detail
