// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace tandem {

/// Bits [Hi, Lo] of a 64-bit word, both ends inclusive, as specifications draw them.
template <unsigned Hi, unsigned Lo = Hi>
struct Field {
  static_assert(Hi < 64 && Lo <= Hi);
  static constexpr unsigned kWidth = Hi - Lo + 1;
  static constexpr std::uint64_t kMax =
      kWidth == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << kWidth) - 1;
  static constexpr std::uint64_t kMask = kMax << Lo;

  static constexpr std::uint64_t get(std::uint64_t word) { return (word & kMask) >> Lo; }
  /// The field alone, holding `value` (excess bits are dropped), other bits zero.
  static constexpr std::uint64_t make(std::uint64_t value) { return (value << Lo) & kMask; }
  static constexpr std::uint64_t set(std::uint64_t word, std::uint64_t value) {
    return (word & ~kMask) | make(value);
  }
};

}  // namespace tandem
