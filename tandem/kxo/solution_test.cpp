// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/solution.hpp"

#include <gtest/gtest.h>

#include <array>
#include <bit>

namespace tandem::kxo {
namespace {

using Kind = Value::Kind;

/// The value by trying everything, without a table.
Value tried(const Rules& rules, const Position& position) {
  const Outcome outcome = rules.outcome(position);
  if (outcome == Outcome::kDraw) return {Kind::kDraw, 0};
  if (outcome != Outcome::kOpen) return {Kind::kLoss, 0};
  Value best{Kind::kLoss, -1};
  for (int cell = 0; cell < rules.cells(); ++cell) {
    if ((position.taken() >> cell & 1) != 0) continue;
    const Value after = tried(rules, position.after(cell));
    const Kind kind = after.kind == Kind::kLoss  ? Kind::kWin
                      : after.kind == Kind::kWin ? Kind::kLoss
                                                 : Kind::kDraw;
    const Value value{kind, after.plies + 1};
    const bool sooner = kind == Kind::kWin && value.plies < best.plies;
    const bool later = kind == Kind::kLoss && value.plies > best.plies;
    if (kind > best.kind || (kind == best.kind && (sooner || later))) best = value;
  }
  return best;
}

void compare_all(const Solution& solution, const Position& position) {
  ASSERT_EQ(solution.value(position), tried(solution.rules(), position));
  if (solution.rules().outcome(position) != Outcome::kOpen) return;
  for (Cells rest = solution.rules().free(position); rest != 0; rest &= rest - 1) {
    compare_all(solution, position.after(std::countr_zero(rest)));
  }
}

TEST(SolutionTest, IsWhatTryingEverythingFinds) {
  for (const auto& [width, height, goal] : {std::array{2, 2, 2}, {3, 2, 3}, {3, 2, 2}, {6, 1, 3}}) {
    const Solution solution = *Solution::of(*Rules::make(width, height, goal));
    compare_all(solution, {});
  }
}

TEST(SolutionTest, ThreeByThreeIsADraw) {
  const Solution solution = *Solution::of(*Rules::make(3, 3, 3));
  EXPECT_EQ(solution.value({}), (Value{Kind::kDraw, 9}));
  EXPECT_EQ(solution.keeping({}), 0b111'111'111U);
  EXPECT_EQ(solution.positions(), 4'536U);
  EXPECT_EQ(solution.positions(Kind::kWin) + solution.positions(Kind::kDraw) +
                solution.positions(Kind::kLoss),
            4'536U);
  EXPECT_GT(solution.positions(Kind::kWin), solution.positions(Kind::kLoss));
}

// Every opening wins, those in the centre fastest, those in the corners slowest.
TEST(SolutionTest, ThreeInARowOnFourByFourIsWonByOInFivePlies) {
  const Solution solution = *Solution::of(Rules::standard());
  EXPECT_EQ(solution.value({}), (Value{Kind::kWin, 5}));
  EXPECT_EQ(solution.keeping({}), 0xffffU);
  EXPECT_EQ(solution.best({}), 0b0000'0110'0110'0000U);
  EXPECT_EQ(solution.value(Position{}.after(1)), (Value{Kind::kLoss, 6}));
  EXPECT_EQ(solution.value(Position{}.after(0)), (Value{Kind::kLoss, 10}));
  EXPECT_EQ(solution.positions(), 3'463'559U);
}

TEST(SolutionTest, FourInARowOnFourByFourIsADraw) {
  const Solution solution = *Solution::of(*Rules::make(4, 4, 4));
  EXPECT_EQ(solution.value({}), (Value{Kind::kDraw, 16}));
  EXPECT_EQ(solution.positions(), 9'067'975U);
}

TEST(SolutionTest, AMoveIsWorthWhatItLeaves) {
  const Solution solution = *Solution::of(Rules::standard());
  EXPECT_EQ(solution.value_of_move({}, 5), (Value{Kind::kWin, 5}));
  EXPECT_EQ(solution.value_of_move({}, 1), (Value{Kind::kWin, 7}));
  EXPECT_EQ(solution.value_of_move({}, 0), (Value{Kind::kWin, 11}));
  const Position two = Position{}.after(5).after(0).after(6).after(3);  // 4 and 7 complete a row
  EXPECT_EQ(solution.value_of_move(two, 7), (Value{Kind::kWin, 1}));
  EXPECT_EQ(solution.value_of_move(Position{}.after(5), 15), (Value{Kind::kLoss, 4}));
  const Solution drawn = *Solution::of(*Rules::make(3, 3, 3));
  EXPECT_EQ(drawn.value_of_move({}, 4), (Value{Kind::kDraw, 9}));
}

TEST(SolutionTest, HasNoMovesAfterTheEnd) {
  const Solution solution = *Solution::of(*Rules::make(2, 2, 2));
  const Position won = Position{}.after(0).after(1).after(2);
  EXPECT_EQ(solution.value(won), (Value{Kind::kLoss, 0}));
  EXPECT_EQ(solution.keeping(won), 0U);
  EXPECT_EQ(solution.best(won), 0U);
}

TEST(SolutionTest, WhoAsksAtTheSameTimeSharesOne) {
  const Rules rules = *Rules::make(3, 3, 3);
  const auto first = *Solution::shared(rules);
  EXPECT_EQ(first, *Solution::shared(*Rules::make(3, 3, 3)));
  EXPECT_NE(first, *Solution::shared(*Rules::make(3, 3, 2)));
  EXPECT_FALSE(Solution::shared(*Rules::make(5, 4, 4)));
}

TEST(SolutionTest, RefusesWhatIsTooLarge) {
  const auto solution = Solution::of(*Rules::make(5, 4, 4));
  ASSERT_FALSE(solution);
  EXPECT_EQ(solution.error(), std::make_error_code(std::errc::file_too_large));
}

}  // namespace
}  // namespace tandem::kxo
