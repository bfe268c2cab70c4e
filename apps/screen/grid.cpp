// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/grid.hpp"

#include <algorithm>

namespace tandem::screen {
namespace {

/// How many boxes fit in `room`, with gaps between them.
int fitting(int room, int box, int gap) { return std::max(1, (room + gap) / (box + gap)); }

}  // namespace

Grid::Grid(Size area, Size box, Size gap, int count)
    : box_(box),
      gap_(gap),
      count_(count),
      across_(fitting(area.columns, box.columns, gap.columns)),
      down_(fitting(area.rows, box.rows, gap.rows)),
      pages_(std::max(1, (count + on_page() - 1) / on_page())) {}

int Grid::end(int page) const { return std::min(count_, begin(page) + on_page()); }

Grid::Place Grid::place(int index) const {
  const int on_its_page = index % on_page();
  return {on_its_page / across_ * (box_.rows + gap_.rows),
          on_its_page % across_ * (box_.columns + gap_.columns)};
}

int Grid::moved(int index, int down, int right) const {
  const int to = index + down * across_ + right;
  return to >= 0 && to < count_ ? to : index;
}

}  // namespace tandem::screen
