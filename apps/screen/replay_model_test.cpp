// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/replay_model.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/screen/keys.hpp"

namespace tandem::screen {
namespace {

using testing::HasSubstr;

ReplayModel two_games() {
  GameRecord first{kxo::Rules::standard(), "a", "b", {0, 4, 1, 5, 2}};
  GameRecord second{kxo::Rules::make(3, 3, 3).value(), "c", "d", {}};
  return ReplayModel({first, second});
}

TEST(ReplayModel, KeysStepThroughMovesAndGames) {
  ReplayModel model = two_games();
  EXPECT_THAT(model.draw({24, 80}).text(), HasSubstr("move 0 of 5"));
  model.on_key(kLeft);
  model.on_key(kRight);
  model.on_key(kRight);
  EXPECT_EQ(model.ply(), 2u);
  EXPECT_THAT(model.draw({24, 80}).text(), HasSubstr("move 2 of 5: X a2"));
  model.on_key(kEnd);
  model.on_key(kRight);
  EXPECT_THAT(model.draw({24, 80}).text(), HasSubstr("move 5 of 5: O c1; O wins"));
  model.on_key(kDown);
  model.on_key(kDown);
  EXPECT_EQ(model.game(), 1u);
  EXPECT_THAT(model.draw({24, 80}).text(), HasSubstr("game 2 of 2"));
  model.on_key(kUp);
  EXPECT_EQ(model.ply(), 0u);
  EXPECT_TRUE(model.on_key('z'));
  EXPECT_FALSE(model.on_key(ctrl('Q')));
}

TEST(ReplayModel, ATerminalThatIsTooSmallIsTold) {
  EXPECT_THAT(two_games().draw({5, 80}).line(0), HasSubstr("this game needs 11 rows"));
  for (const Size size : {Size{5, 80}, {12, 20}, {12, 40}, {60, 200}}) {
    EXPECT_THAT(two_games().draw(size).text(), HasSubstr("^Q end"));
  }
}

}  // namespace
}  // namespace tandem::screen
