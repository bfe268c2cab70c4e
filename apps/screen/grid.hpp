// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "apps/screen/canvas.hpp"

namespace tandem::screen {

/// Where many boxes of one size stand in an area: in rows, as many a page as there is room for,
/// and at least one.
class Grid {
 public:
  /// `gap` columns and rows lie between boxes.
  Grid(Size area, Size box, Size gap, int count);

  int across() const { return across_; }
  int on_page() const { return across_ * down_; }
  int pages() const { return pages_; }
  int page_of(int index) const { return index / on_page(); }
  /// The first box of a page, and the one behind its last.
  int begin(int page) const { return page * on_page(); }
  int end(int page) const;

  struct Place {
    int row, column;
  };
  /// Its upper left corner, on the page it is on.
  Place place(int index) const;
  /// Where a step from `index` leads: to the next box in that direction, on whatever page; stays
  /// where there is none.
  int moved(int index, int down, int right) const;

 private:
  Size box_, gap_;
  int count_, across_, down_, pages_;
};

}  // namespace tandem::screen
