// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace tandem::iommu::detail {

/// A word as a structure in memory has it, of the word itself, and the other way round. Words of
/// memory are loaded and stored little-endian.
///
/// Spec: §3.10 "Endianness of in-memory data structures".
constexpr std::uint64_t in_byte_order(std::uint64_t word, bool big_endian) {
  return big_endian ? __builtin_bswap64(word) : word;
}
constexpr std::uint32_t in_byte_order(std::uint32_t word, bool big_endian) {
  return big_endian ? __builtin_bswap32(word) : word;
}

}  // namespace tandem::iommu::detail
