// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "tandem/iommu/iommu.hpp"

namespace tandem::iommu::detail {

/// Stores four bytes at `at`, which is 4-byte aligned: what is there may be a register of an
/// interrupt controller. Returns: false on an access fault.
bool store_message(const memory::Memory& memory, PhysAddr at, std::uint32_t data);

/// Makes interrupt `identity` pending in a memory-resident interrupt file, by an atomic or.
/// Errors: why memory refused.
Result<void, memory::Fault> set_pending(const memory::Memory& memory, const Mrif& mrif,
                                        std::uint32_t identity);

}  // namespace tandem::iommu::detail
