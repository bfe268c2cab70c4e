// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/regret.hpp"

#include <gtest/gtest.h>

#include "tandem/kxo/detail/test_agents.hpp"

namespace tandem::kxo {
namespace {

TEST(RegretTest, PositionsAreThoseWhereSomeMoveLosesValueAndSomeKeepsIt) {
  const auto solution = *Solution::shared(Rules::standard());
  for (std::uint64_t i = 0; i < 500; ++i) {
    const Position position = position_with_regret(*solution, 7, i);
    EXPECT_LE(position.plies(), 8);
    const Cells keeping = solution->keeping(position);
    EXPECT_NE(keeping, 0U);
    EXPECT_NE(keeping, solution->rules().free(position));
    EXPECT_EQ(position, position_with_regret(*solution, 7, i));
  }
}

// The reference figure: 32 moves of a hundred.
TEST(RegretTest, RandomPlayKeepsTheValueWithAThirdOfItsMoves) {
  const auto solution = *Solution::shared(Rules::standard());
  const auto agent = detail::agent_of("random", solution->rules());
  const Regret regret = *measure_regret(*agent, *solution, 4'000, 1);
  EXPECT_EQ(regret.positions, 4'000U);
  EXPECT_NEAR(regret.kept_share(), 0.32, 0.06);
  EXPECT_LE(regret.best, regret.kept);
  EXPECT_LE(regret.longest, regret.time);
  EXPECT_LE(regret.median, regret.longest);
  EXPECT_GT(regret.median.count(), 0);
}

TEST(RegretTest, GamesInWhichNoMoveLosesValueHaveNone) {
  const auto solution = *Solution::shared(*Rules::make(2, 2, 2));
  EXPECT_FALSE(have_regret(*solution));
  const auto agent = detail::agent_of("random", solution->rules());
  EXPECT_EQ(measure_regret(*agent, *solution, 1, 1).error(),
            std::make_error_code(std::errc::argument_out_of_domain));
}

}  // namespace
}  // namespace tandem::kxo
