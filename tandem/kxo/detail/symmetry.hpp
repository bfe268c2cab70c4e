// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tandem/kxo/rules.hpp"

namespace tandem::kxo::detail {

/// The ways to turn and mirror a board of these rules onto itself: eight of a square, else four.
/// Each is where every cell goes; the first one leaves all in place.
std::vector<std::array<std::uint8_t, Rules::kMostCells>> symmetries(const Rules& rules);

/// One number for all positions, of at most 16 cells, that are the same up to symmetry.
/// Thread safety: immutable.
class CanonicalIndex {
 public:
  explicit CanonicalIndex(const Rules& rules);

  /// Below 3^cells: the least of the base-3 numbers, O's stones 1 and X's 2, of the images.
  std::uint32_t of(const Position& position) const noexcept {
    const Sums &o_low = sums_[0][position.o & 0xff], &o_high = sums_[1][position.o >> 8 & 0xff];
    const Sums &x_low = sums_[0][position.x & 0xff], &x_high = sums_[1][position.x >> 8 & 0xff];
    std::uint32_t least = ~0U;
    for (std::size_t i = 0; i < kImages; ++i) {
      const std::uint32_t image = o_low[i] + o_high[i] + 2 * (x_low[i] + x_high[i]);
      least = image < least ? image : least;
    }
    return least;
  }

 private:
  static constexpr std::size_t kImages = 8;
  /// What stones of O add to the number of each image.
  using Sums = std::array<std::uint32_t, kImages>;
  std::vector<std::array<Sums, 256>> sums_;  // of cells 0 to 7 and 8 to 15
};

}  // namespace tandem::kxo::detail
