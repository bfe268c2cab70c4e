// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/playout.hpp"

#include <gtest/gtest.h>

#include <map>

#include "tandem/kxo/detail/test_agents.hpp"

namespace tandem::kxo {
namespace {

using detail::random_play;

// Random games of three by three: O wins 58.5 %, X 28.8 %, 12.7 % are drawn.
TEST(PlayoutTest, OutcomesAreAsLikelyAsRandomPlayMakesThem) {
  const Rules rules = *Rules::make(3, 3, 3);
  for (const Position& position :
       {Position{}, Position{}.after(0), Position{}.after(4).after(0).after(1)}) {
    std::map<Outcome, int> counts;
    Random random({1, 1});
    for (int i = 0; i < 40'000; ++i) ++counts[playout(rules, position, random)];
    EXPECT_EQ(counts.count(Outcome::kOpen), 0U);
    for (const auto& [outcome, share] : random_play(rules, position)) {
      EXPECT_NEAR(counts[outcome] / 40'000.0, share, 0.0125);  // five standard deviations
    }
  }
}

TEST(PlayoutTest, OfAFullBoardOrTheLastCellHasOneOutcome) {
  const Rules rules = *Rules::make(8, 8, 8);
  Random random({1, 1});
  // A quarter each, with two corners exchanged: nobody has a row of eight.
  Position position{0x0f0f'0f0f'f0f0'f071ULL, ~0x0f0f'0f0f'f0f0'f071ULL};
  EXPECT_EQ(playout(rules, position, random), Outcome::kDraw);
  position.x &= ~(Cells{1} << 63);
  EXPECT_EQ(playout(rules, position, random), Outcome::kDraw);
  EXPECT_EQ(playout(*Rules::make(1, 1, 1), {}, random), Outcome::kO);
}

TEST(PlayoutTest, EndsWithARowOfWhoItSays) {
  const Rules rules = *Rules::make(4, 1, 2);
  // X moves; only O can have a row.
  const Position position = Position{}.after(2);
  Random random({2, 1});
  std::map<Outcome, int> counts;
  for (int i = 0; i < 3'000; ++i) ++counts[playout(rules, position, random)];
  // X on 0: O wins. X on 1 or 3: O has one other neighbour left and takes it half the time.
  EXPECT_NEAR(counts[Outcome::kO], 3'000 * random_play(rules, position)[Outcome::kO], 140);
  EXPECT_NEAR(counts[Outcome::kX], 3'000 * random_play(rules, position)[Outcome::kX], 140);
}

}  // namespace
}  // namespace tandem::kxo
