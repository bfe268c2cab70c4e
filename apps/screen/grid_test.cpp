// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/grid.hpp"

#include <gtest/gtest.h>

#include <set>
#include <utility>

namespace tandem::screen {
namespace {

TEST(Grid, AsManyBoxesAsFitAndPagesForTheRest) {
  const Grid grid({21, 80}, {4, 24}, {1, 2}, 64);
  EXPECT_EQ(grid.across(), 3);
  EXPECT_EQ(grid.on_page(), 12);
  EXPECT_EQ(grid.pages(), 6);
  EXPECT_EQ(grid.page_of(11), 0);
  EXPECT_EQ(grid.page_of(12), 1);
  EXPECT_EQ(grid.begin(5), 60);
  EXPECT_EQ(grid.end(5), 64);
}

TEST(Grid, BoxesDoNotOverlapAndStayInsideWhateverTheSize) {
  for (int rows = 4; rows < 60; rows += 3) {
    for (int columns = 24; columns < 200; columns += 7) {
      const Size box{4, 24};
      const Grid grid({rows, columns}, box, {1, 2}, 100);
      std::set<std::pair<int, int>> used;
      for (int i = grid.begin(0); i < grid.end(0); ++i) {
        const auto at = grid.place(i);
        for (int row = 0; row < box.rows; ++row) {
          EXPECT_LT(at.row + row, rows);
          EXPECT_TRUE(used.insert({at.row + row, at.column}).second);
        }
        EXPECT_LE(at.column + box.columns, columns);
      }
      EXPECT_GT((grid.across() + 1) * (box.columns + 2), columns + 2);
    }
  }
}

TEST(Grid, ThereIsRoomForOneAlways) {
  const Grid grid({1, 1}, {4, 24}, {1, 2}, 3);
  EXPECT_EQ(grid.on_page(), 1);
  EXPECT_EQ(grid.pages(), 3);
  EXPECT_EQ(Grid({50, 50}, {4, 24}, {1, 2}, 0).pages(), 1);
}

TEST(Grid, StepsStayOnTheBoards) {
  const Grid grid({9, 50}, {4, 24}, {1, 2}, 7);  // 2 across, 2 down
  EXPECT_EQ(grid.moved(0, 0, -1), 0);
  EXPECT_EQ(grid.moved(0, 1, 0), 2);
  EXPECT_EQ(grid.moved(2, 1, 0), 4);
  EXPECT_EQ(grid.moved(5, 1, 0), 5);
  EXPECT_EQ(grid.moved(5, 0, 1), 6);
  EXPECT_EQ(grid.moved(6, 0, 1), 6);
  EXPECT_EQ(grid.moved(6, -1, 0), 4);
}

}  // namespace
}  // namespace tandem::screen
