// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/rules.hpp"

#include <algorithm>

#include "tandem/base/check.hpp"

namespace tandem::kxo {

Result<Rules> Rules::make(int width, int height, int goal) {
  const bool fits = width >= 1 && height >= 1 && width <= kMostCells && height <= kMostCells &&
                    width * height <= kMostCells && goal >= 1 && goal <= std::max(width, height);
  if (!fits) return errno_error(EINVAL);
  return Rules(width, height, goal);
}

Rules Rules::standard() { return Rules(4, 4, 3); }

Rules::Rules(int width, int height, int goal)
    : width_(width),
      height_(height),
      goal_(goal),
      all_(width * height == kMostCells ? ~Cells{0} : cell_bit(width * height) - 1) {
  const auto direction = [&](int right, int down) {
    Direction d{down * width + right, 0};
    for (int row = 0; row < height; ++row) {
      for (int column = 0; column < width; ++column) {
        const int last_row = row + down * (goal - 1);
        const int last_column = column + right * (goal - 1);
        if (last_row < height && last_column < width && last_column >= 0) {
          d.starts |= cell_bit(row * width + column);
        }
      }
    }
    return d;
  };
  directions_[0] = direction(1, 0);
  directions_[1] = direction(0, 1);
  directions_[2] = direction(1, 1);
  directions_[3] = direction(-1, 1);
  if (cells() > kTableCells) return;
  std::vector<std::uint64_t> rows(std::max<std::size_t>(1, (all_ + 1) / 64));
  for (Cells stones = 0; stones <= all_; ++stones) {
    if (finds_row(stones)) rows[stones / 64] |= cell_bit(static_cast<int>(stones % 64));
  }
  rows_ = std::move(rows);
}

bool Rules::finds_row(Cells stones) const noexcept {
  Cells begins = 0;
  for (const Direction& d : directions_) {
    Cells row = d.starts & stones;
    // A row that runs off the board does not begin in `starts`, so no shift here reaches 64.
    for (int i = 1; i < goal_ && row != 0; ++i) row &= stones >> (i * d.step);
    begins |= row;
  }
  return begins != 0;
}

}  // namespace tandem::kxo
