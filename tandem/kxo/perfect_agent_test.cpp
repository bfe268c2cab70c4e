// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <set>

#include "tandem/kxo/detail/test_agents.hpp"
#include "tandem/kxo/regret.hpp"

namespace tandem::kxo::detail {
namespace {

TEST(PerfectAgentTest, WinsStandardGamesInFivePlies) {
  const auto perfect = agent_of("perfect", Rules::standard());
  const auto other = agent_of("perfect", Rules::standard());
  std::set<std::string> games;
  for (std::uint64_t game = 0; game < 50; ++game) {
    games.insert(game_between(*perfect, *other, {1, game}));
    EXPECT_EQ(games.rbegin()->size(), 5U);
  }
  EXPECT_GT(games.size(), 10U);  // any of the best moves
}

TEST(PerfectAgentTest, MakesOnlyBestMoves) {
  const auto solution = *Solution::shared(*Rules::make(4, 3, 3));
  const auto agent = agent_of("perfect", solution->rules());
  const Regret regret = *measure_regret(*agent, *solution, 500, 1);
  EXPECT_EQ(regret.best, 500U);
  EXPECT_EQ(regret.kept, 500U);
}

TEST(PerfectAgentTest, SaysWhichBoardsAreTooLarge) {
  EXPECT_EQ(make_agent("perfect", *Rules::make(5, 4, 3)).error(),
            "perfect: boards of more than 16 cells are not solved");
}

}  // namespace
}  // namespace tandem::kxo::detail
