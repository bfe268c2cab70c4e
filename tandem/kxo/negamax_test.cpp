// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <malloc.h>

#include <bit>
#include <chrono>

#include "tandem/kxo/detail/test_agents.hpp"
#include "tandem/kxo/regret.hpp"

namespace tandem::kxo::detail {
namespace {

using namespace std::chrono_literals;

TEST(NegamaxTest, KeepsTheValueOfTheGameWhereMovesCanLoseIt) {
  for (const int goal : {3, 4}) {
    const auto solution = *Solution::shared(*Rules::make(4, 4, goal));
    const auto agent = agent_of("negamax:nodes=4000", solution->rules());
    const Regret regret = *measure_regret(*agent, *solution, 300, 1);
    EXPECT_GE(regret.kept_share(), 0.99) << goal;
  }
}

TEST(NegamaxTest, SearchesToTheEndWhenItsLimitsLetIt) {
  for (const auto& [width, height, goal] : {std::array{3, 3, 3}, {4, 3, 3}, {5, 2, 2}}) {
    const auto solution = *Solution::shared(*Rules::make(width, height, goal));
    const auto agent = agent_of("negamax:nodes=10000000", solution->rules());
    const Regret regret = *measure_regret(*agent, *solution, 200, 1);
    EXPECT_EQ(regret.kept, regret.positions) << width << 'x' << height << ',' << goal;
  }
}

// Upstream's engines walked past wins: 184 of 1,040.
TEST(NegamaxTest, MissesNoWinAndNoThreat) {
  const Rules rules = Rules::standard();
  const auto agent = agent_of("negamax:depth=1", rules);
  Random random({8, 1});
  int wins = 0, threats = 0;
  for (int game = 0; game < 500; ++game) {
    Position position;
    while (rules.outcome(position) == Outcome::kOpen) {
      const Cells free = rules.free(position);
      Cells winning = 0, losing = 0;
      for (Cells rest = free; rest != 0; rest &= rest - 1) {
        const int cell = std::countr_zero(rest);
        const Player player = position.to_move();
        if (rules.has_row(position.of(player) | cell_bit(cell))) winning |= cell_bit(cell);
        if (rules.has_row(position.of(opponent(player)) | cell_bit(cell))) losing |= cell_bit(cell);
      }
      const Cells wanted = winning != 0 ? winning : losing;
      wins += winning != 0;
      threats += winning == 0 && losing != 0;
      const int cell = *agent->choose(position);
      if (wanted != 0) {
        ASSERT_NE(wanted & cell_bit(cell), 0U) << position.o << ' ' << position.x;
      }
      const auto count = static_cast<std::uint64_t>(std::popcount(free));
      position = position.after(nth_cell(free, static_cast<int>(random.below(count))));
    }
  }
  EXPECT_GT(wins, 200);
  EXPECT_GT(threats, 200);
}

TEST(NegamaxTest, PlaysTheSameGameEachTime) {
  const Rules rules = *Rules::make(6, 6, 4);
  const auto a = agent_of("negamax:nodes=500", rules), b = agent_of("negamax:nodes=500", rules);
  const std::string game = game_between(*a, *a, {4, 9});
  EXPECT_EQ(game_between(*b, *b, {4, 9}), game);
  EXPECT_EQ(game_between(*a, *a, {5, 9}), game);  // nothing is left of the first one, nor chance
}

TEST(NegamaxTest, TheTighterLimitOfItselfAndOfTheCallerEndsTheSearch) {
  const Rules rules = *Rules::make(8, 8, 5);
  const auto agent = agent_of("negamax:nodes=500", rules);
  ASSERT_TRUE(agent->choose({}));
  EXPECT_EQ(agent->work(), 500U);
  ASSERT_TRUE(agent->choose({}, {0ns, 100}));
  EXPECT_EQ(agent->work(), 100U);
  ASSERT_TRUE(agent->choose({}, {0ns, 1}));
  EXPECT_EQ(agent->work(), 1U);
  const auto by_time = agent_of("negamax:time=5ms", rules);
  ASSERT_TRUE(by_time->choose({}));
  EXPECT_GT(by_time->work(), 0U);
}

TEST(NegamaxTest, KnowsTheBoardsOfSixtyFourCells) {
  const auto agent = agent_of("negamax:nodes=2000", *Rules::make(8, 8, 5));
  // Four in a row, open at one end.
  Position position{0b00011110, 0b00100000 | cell_bit(40) | cell_bit(50) | cell_bit(63)};
  EXPECT_EQ(*agent->choose(position), 0);
}

// Upstream lost 0.8 MB with each move.
TEST(NegamaxTest, AThousandMovesLeaveMemoryAsItWas) {
  const auto agent = agent_of("negamax:nodes=200", Rules::standard());
  ASSERT_TRUE(agent->choose({}));
  const auto before = ::mallinfo2();
  for (std::uint64_t game = 0; game < 100; ++game) {
    agent->begin({1, game});
    Position position;
    for (int i = 0; i < 10 && agent->rules().outcome(position) == Outcome::kOpen; ++i) {
      position = position.after(*agent->choose(position));
    }
  }
  const auto after = ::mallinfo2();
  EXPECT_LE(after.uordblks + after.hblkhd, before.uordblks + before.hblkhd + 4096);
}

TEST(NegamaxTest, RefusesOptionsThatMakeNoSense) {
  for (const char* text : {"negamax:depth=0", "negamax:depth=65", "negamax:nodes=0",
                           "negamax:table=60", "negamax:threads=2"}) {
    EXPECT_FALSE(make_agent(text, Rules::standard())) << text;
  }
}

}  // namespace
}  // namespace tandem::kxo::detail
