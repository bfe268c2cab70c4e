// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "tandem/kxo/detail/test_agents.hpp"
#include "tandem/kxo/regret.hpp"

namespace tandem::kxo::detail {
namespace {

using namespace std::chrono_literals;

// Upstream's sign mismatch, and what it lost in fixed point, cost it thirty moves of a hundred.
TEST(MctsTest, KeepsTheValueOfTheGameWhereMovesCanLoseIt) {
  for (const int goal : {3, 4}) {
    const auto solution = *Solution::shared(*Rules::make(4, 4, goal));
    const auto agent = agent_of("mcts:iterations=2000", solution->rules());
    const Regret regret = *measure_regret(*agent, *solution, 400, 1);
    EXPECT_GE(regret.kept_share(), 0.99) << goal;
  }
}

TEST(MctsTest, OneThreadPlaysTheSameGameEachTime) {
  const Rules rules = *Rules::make(5, 5, 4);
  const auto a = agent_of("mcts:iterations=200", rules), b = agent_of("mcts:iterations=200", rules);
  const std::string game = game_between(*a, *a, {4, 9});
  EXPECT_EQ(game_between(*b, *b, {4, 9}), game);
  EXPECT_EQ(game_between(*a, *a, {4, 9}), game);  // nothing is left of the first game
}

TEST(MctsTest, ThreadsPlayAsWellTogether) {
  const auto solution = *Solution::shared(*Rules::make(4, 4, 4));
  const auto agent = agent_of("mcts:iterations=2000,threads=3", solution->rules());
  const Regret regret = *measure_regret(*agent, *solution, 200, 1);
  EXPECT_GE(regret.kept_share(), 0.98);
}

TEST(MctsTest, TheTighterLimitOfItselfAndOfTheCallerEndsTheSearch) {
  const Rules rules = *Rules::make(7, 7, 5);
  const auto agent = agent_of("mcts:iterations=500", rules);
  ASSERT_TRUE(agent->choose({}));
  EXPECT_EQ(agent->work(), 500U);
  ASSERT_TRUE(agent->choose({}, {0ns, 100}));
  EXPECT_EQ(agent->work(), 100U);
  ASSERT_TRUE(agent->choose({}, {0ns, 1000}));
  EXPECT_EQ(agent->work(), 500U);
  const auto threads = agent_of("mcts:threads=3", rules);
  for (const std::uint64_t work : {100U, 1'000U, 10'000U}) {
    ASSERT_TRUE(threads->choose({}, {0ns, work}));
    EXPECT_EQ(threads->work(), work);
  }
  ASSERT_TRUE(threads->choose({}, {0ns, 2}));  // fewer than threads
  EXPECT_EQ(threads->work(), 2U);
  ASSERT_TRUE(threads->choose({}, {20ms, 0}));
  EXPECT_GT(threads->work(), 0U);
}

// Upstream's engines walked past wins: 184 of 1,040.
TEST(MctsTest, AWinAndAnAnswerToAThreatNeedNoIterations) {
  const auto agent = agent_of("mcts", Rules::standard());
  EXPECT_EQ(*agent->choose(after(5, 4, 6, 0)), 7);   // its own row, not the answer to 0, 4
  EXPECT_EQ(*agent->choose(after(0, 5, 15, 6)), 4);  // or 7: both
  EXPECT_EQ(*agent->choose(after(0, 4, 15, 5)), 6);
  EXPECT_EQ(agent->work(), 0U);
}

// With a tree of one ply nothing is proven, and the move is what random games say: to an open four,
// for either player.
TEST(MctsTest, WhereNothingIsProvenRandomGamesDecide) {
  const Rules rules = *Rules::make(7, 7, 5);
  const auto agent = agent_of("mcts:nodes=1,iterations=5000", rules);
  EXPECT_EQ(*agent->choose(after(22, 0, 23, 6, 24, 42)), 25);
  EXPECT_EQ(*agent->choose(after(0, 22, 6, 23, 42, 24, 48)), 25);
}

TEST(MctsTest, HasFewNodesWhenItIsToldTo) {
  const Rules rules = *Rules::make(8, 8, 5);
  const auto agent = agent_of("mcts:nodes=100,iterations=3000", rules);
  EXPECT_TRUE(agent->choose({}));
  EXPECT_EQ(agent->work(), 3'000U);
}

TEST(MctsTest, RefusesOptionsThatMakeNoSense) {
  for (const char* text : {"mcts:threads=0", "mcts:iterations=0", "mcts:exploration=-1",
                           "mcts:time=fast", "mcts:nodes=0", "mcts:reuse=2", "mcts:depth=4"}) {
    EXPECT_FALSE(make_agent(text, Rules::standard())) << text;
  }
}

}  // namespace
}  // namespace tandem::kxo::detail
