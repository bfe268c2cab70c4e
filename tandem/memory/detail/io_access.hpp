// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "tandem/memory/memory.hpp"

namespace tandem::memory::detail {

/// Whether `sizes` names accesses: powers of two, of which the smaller one comes first.
bool well_formed(const AccessSizes& sizes);

/// The length of the first access of which [offset, offset + length) is made; 0 when none is taken.
std::size_t first_piece(const AccessSizes& sizes, std::uint64_t offset, std::size_t length);

}  // namespace tandem::memory::detail
