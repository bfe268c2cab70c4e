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
  const std::shared_ptr<std::uint64_t[]> rows(new std::uint64_t[(all_ + 64) / 64]());
  for (Cells stones = 0; stones <= all_; ++stones) {
    if (finds_row(stones)) rows.get()[stones / 64] |= cell_bit(static_cast<int>(stones % 64));
  }
  rows_ = rows;
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

Cells Rules::completing(Cells stones) const noexcept {
  Cells cells = 0;
  for (const Direction& d : directions_) {
    // Bit `cell` of rows[i]: `cell` begins a row whose first i cells are stones.
    Cells rows[kMostCells + 1];
    rows[0] = d.starts;
    int full = 0;
    for (; full < goal_ && rows[full] != 0; ++full) {
      rows[full + 1] = rows[full] & (stones >> (full * d.step));
    }
    // From the row's end: the cells behind the gap are stones, too.
    Cells behind = d.starts;
    for (int gap = goal_ - 1; gap >= 0 && behind != 0; --gap) {
      if (gap <= full) cells |= (rows[gap] & behind) << (gap * d.step);
      behind &= stones >> (gap * d.step);
    }
  }
  return cells;
}

}  // namespace tandem::kxo
