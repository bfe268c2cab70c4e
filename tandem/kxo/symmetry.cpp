// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/detail/symmetry.hpp"

#include <bit>
#include <utility>

namespace tandem::kxo::detail {

std::vector<std::array<std::uint8_t, Rules::kMostCells>> symmetries(const Rules& rules) {
  std::vector<std::array<std::uint8_t, Rules::kMostCells>> maps;
  const int width = rules.width(), height = rules.height();
  for (int image = 0; image < (width == height ? 8 : 4); ++image) {
    auto& map = maps.emplace_back();
    for (int cell = 0; cell < rules.cells(); ++cell) {
      int row = cell / width, column = cell % width;
      if ((image & 1) != 0) column = width - 1 - column;
      if ((image & 2) != 0) row = height - 1 - row;
      if ((image & 4) != 0) std::swap(row, column);
      map.at(static_cast<std::size_t>(cell)) = static_cast<std::uint8_t>(row * width + column);
    }
  }
  return maps;
}

CanonicalIndex::CanonicalIndex(const Rules& rules) : sums_(2) {
  std::array<std::uint32_t, Rules::kMostCells> powers{};
  std::uint32_t power = 1;
  for (int cell = 0; cell < rules.cells(); ++cell) {
    powers.at(static_cast<std::size_t>(cell)) = power;
    power *= 3;
  }
  const auto maps = symmetries(rules);
  for (std::size_t half = 0; half < 2; ++half) {
    for (std::uint32_t stones = 0; stones < 256; ++stones) {
      for (std::size_t i = 0; i < kImages; ++i) {
        std::uint32_t sum = 0;
        for (std::uint32_t rest = stones; rest != 0; rest &= rest - 1) {
          const std::size_t cell = half * 8 + static_cast<std::size_t>(std::countr_zero(rest));
          sum += powers.at(maps[i % maps.size()].at(cell));
        }
        sums_[half][stones][i] = sum;
      }
    }
  }
}

}  // namespace tandem::kxo::detail
