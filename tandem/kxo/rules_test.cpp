// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/rules.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <set>
#include <string>
#include <utility>

namespace tandem::kxo {
namespace {

/// A referee that knows nothing of bits: looks along every row from every cell of a drawn board.
class DrawnBoard {
 public:
  DrawnBoard(const Rules& rules, const Position& position)
      : width_(rules.width()), height_(rules.height()), goal_(rules.goal()) {
    for (int cell = 0; cell < rules.cells(); ++cell) {
      const bool is_o = (position.o >> cell & 1) != 0;
      const bool is_x = (position.x >> cell & 1) != 0;
      drawn_ += is_o ? 'O' : is_x ? 'X' : '.';
    }
  }
  bool row_of(char who) const {
    for (int row = 0; row < height_; ++row) {
      for (int column = 0; column < width_; ++column) {
        for (const auto& [down, right] : {std::pair{0, 1}, {1, 0}, {1, 1}, {1, -1}}) {
          int length = 0;
          while (length < goal_ && at(row + length * down, column + length * right) == who) {
            ++length;
          }
          if (length == goal_) return true;
        }
      }
    }
    return false;
  }
  Outcome outcome() const {
    if (row_of('O')) return Outcome::kO;
    if (row_of('X')) return Outcome::kX;
    return drawn_.find('.') == std::string::npos ? Outcome::kDraw : Outcome::kOpen;
  }

 private:
  char at(int row, int column) const {
    if (row < 0 || row >= height_ || column < 0 || column >= width_) return ' ';
    const int cell = row * width_ + column;
    return drawn_[static_cast<std::size_t>(cell)];
  }
  int width_, height_, goal_;
  std::string drawn_;
};

TEST(RulesTest, RefusesBoardsThatAreNone) {
  for (const auto& [width, height, goal] : {std::array{0, 4, 3},
                                            {4, 0, 3},
                                            {4, 4, 0},
                                            {4, 4, 5},
                                            {9, 8, 3},
                                            {65, 1, 3},
                                            {-4, -4, 3},
                                            {1 << 16, 1 << 16, 3},
                                            {1, 65, 1}}) {
    const auto rules = Rules::make(width, height, goal);
    ASSERT_FALSE(rules) << width << " x " << height << ", " << goal;
    EXPECT_EQ(rules.error(), std::make_error_code(std::errc::invalid_argument));
  }
}

TEST(RulesTest, AgreesWithAnotherRefereeOnEveryPositionOfThreeByThree) {
  const Rules rules = *Rules::make(3, 3, 3);
  long seen = 0;
  for (Cells o = 0; o <= rules.all(); ++o) {
    for (Cells x = 0; x <= rules.all(); ++x) {
      if ((o & x) != 0) continue;
      ++seen;
      const Position position{o, x};
      ASSERT_EQ(rules.outcome(position), DrawnBoard(rules, position).outcome()) << o << ' ' << x;
    }
  }
  EXPECT_EQ(seen, 19'683);  // 3 to the 9th
}

TEST(RulesTest, AgreesWithAnotherRefereeOnRandomPositionsOfEverySize) {
  std::mt19937_64 random(20);
  std::set<Outcome> outcomes;
  for (int width = 1; width <= 16; ++width) {
    for (int height = 1; height <= 16 && width * height <= Rules::kMostCells; ++height) {
      for (int goal = 1; goal <= std::max(width, height); ++goal) {
        const Rules rules = *Rules::make(width, height, goal);
        for (int i = 0; i < 50; ++i) {
          // Dense and sparse ones.
          Cells stones = random() & rules.all();
          if (i % 2 != 0) stones |= random() & rules.all();
          Position position{stones, ~stones & rules.all()};
          if (i % 3 != 0) position.x &= random();
          const DrawnBoard drawn(rules, position);
          ASSERT_EQ(rules.has_row(position.o), drawn.row_of('O'))
              << width << 'x' << height << ',' << goal << ' ' << position.o;
          ASSERT_EQ(rules.outcome(position), drawn.outcome());
          outcomes.insert(rules.outcome(position));
        }
      }
    }
  }
  EXPECT_EQ(outcomes.size(), 4U);
}

TEST(RulesTest, ACellCompletesARowIfThereIsOneWithIt) {
  std::mt19937_64 random(21);
  for (int width = 1; width <= 9; ++width) {
    for (int height = 1; height <= 9 && width * height <= Rules::kMostCells; ++height) {
      for (int goal = 1; goal <= std::max(width, height); ++goal) {
        const Rules rules = *Rules::make(width, height, goal);
        for (int i = 0; i < 30; ++i) {
          Cells stones = random() & rules.all();
          if (i % 2 != 0) stones |= random() & rules.all();
          if (i % 3 != 0) stones &= random();
          if (rules.has_row(stones)) continue;
          Cells completing = 0;
          for (int cell = 0; cell < rules.cells(); ++cell) {
            if (rules.has_row(stones | cell_bit(cell))) completing |= cell_bit(cell);
          }
          ASSERT_EQ(rules.completing(stones), completing)
              << width << 'x' << height << ',' << goal << ' ' << stones;
        }
      }
    }
  }
}

TEST(RulesTest, TheStandardBoardHasTwentyFourRows) {
  const Rules rules = Rules::standard();
  int rows = 0;
  for (Cells stones = 0; stones <= rules.all(); ++stones) {
    rows += static_cast<int>(std::popcount(stones) == 3 && rules.has_row(stones));
  }
  EXPECT_EQ(rows, 24);
}

TEST(PositionTest, OBeginsAndTheyTakeTurns) {
  Position position;
  EXPECT_EQ(position.to_move(), Player::kO);
  position = position.after(5);
  EXPECT_EQ(position, (Position{cell_bit(5), 0}));
  EXPECT_EQ(position.to_move(), Player::kX);
  position = position.after(63);
  EXPECT_EQ(position, (Position{cell_bit(5), cell_bit(63)}));
  EXPECT_EQ(position.to_move(), Player::kO);
}

}  // namespace
}  // namespace tandem::kxo
