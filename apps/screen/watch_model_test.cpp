// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/watch_model.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/screen/keys.hpp"

namespace tandem::screen {
namespace {

using testing::HasSubstr;
using testing::Not;
using Wish = WatchModel::Wish;

constexpr Size kSmall{24, 80};

WatchModel model_of(int boards) {
  return {kxo::Rules::standard(),
          std::vector<WatchModel::Players>(static_cast<std::size_t>(boards), {"perfect", "random"}),
          {"mcts", "perfect", "random"},
          10};
}

/// O wins in the first row.
void play_a_game(WatchModel& model, int board) {
  for (const int cell : {0, 4, 1, 5, 2}) model.add_move(board, cell);
}

TEST(WatchModel, AGameStaysToBeSeenUntilTheNextOnesFirstMove) {
  WatchModel model = model_of(1);
  play_a_game(model, 0);
  EXPECT_THAT(model.draw(kSmall, 0).text(), HasSubstr("O O O ."));
  EXPECT_THAT(model.draw(kSmall, 0).text(), HasSubstr(">1 O wins"));
  EXPECT_TRUE(model.open_moves(0).empty());
  model.add_move(0, 15);
  EXPECT_THAT(model.draw(kSmall, 0).text(), Not(HasSubstr("O O O .")));
  EXPECT_THAT(model.draw(kSmall, 0).text(), HasSubstr(". . . O"));
  EXPECT_EQ(model.open_moves(0), std::vector{15});
}

TEST(WatchModel, ResultsAreCountedAndHistoryIsKept) {
  WatchModel model = model_of(2);
  play_a_game(model, 1);
  play_a_game(model, 1);
  model.add_move(1, 3);
  EXPECT_EQ(model.games(), 2u);
  EXPECT_EQ(model.moves(), 11u);
  EXPECT_THAT(model.draw(kSmall, 0).text(), HasSubstr("O perfect     2"));
  EXPECT_EQ(model.history(),
            "board 2 game 1: perfect - random: O wins: a1 a2 b1 b2 c1\n"
            "board 2 game 2: perfect - random: O wins: a1 a2 b1 b2 c1\n"
            "board 2 game 3: perfect - random: open: d1\n");
}

TEST(WatchModel, TheLastMoveIsMarkedWithoutColour) {
  WatchModel model = model_of(1);
  model.add_move(0, 0);
  model.add_move(0, 5);
  const Canvas canvas = model.draw(kSmall, 0);
  EXPECT_EQ(canvas.at(2, 0).character, 'O');
  EXPECT_EQ(canvas.at(2, 0).style & (kBold | kUnderlined), 0);
  EXPECT_EQ(canvas.at(3, 2).character, 'X');
  EXPECT_EQ(canvas.at(3, 2).style & (kBold | kUnderlined), kBold | kUnderlined);
}

TEST(WatchModel, PausingStopsTheDrawingAndNothingElse) {
  WatchModel model = model_of(2);
  model.add_move(0, 0);
  const std::string before = model.draw(kSmall, 0).line(2);
  EXPECT_EQ(model.on_key(ctrl('P'), kSmall), Wish::kNothing);
  EXPECT_TRUE(model.paused());
  EXPECT_THAT(model.draw(kSmall, 0).text(), HasSubstr("PAUSED"));
  for (const int cell : {4, 1, 5, 2}) model.add_move(0, cell);
  EXPECT_EQ(model.draw(kSmall, 0).line(2), before);
  EXPECT_EQ(model.draw({30, 100}, 0).line(2), before);
  EXPECT_THAT(model.history(), HasSubstr("O wins"));
  model.on_key(ctrl('P'), kSmall);
  EXPECT_THAT(model.draw(kSmall, 0).text(), HasSubstr("O O O ."));
}

TEST(WatchModel, BoardsThatDoNotFitAreOnOtherPages) {
  WatchModel model = model_of(64);
  const Canvas first = model.draw(kSmall, 0);
  EXPECT_THAT(first.line(0), HasSubstr("page 1/6"));
  EXPECT_THAT(first.text(), HasSubstr("#12"));
  EXPECT_THAT(first.text(), Not(HasSubstr("#13")));
  EXPECT_THAT(first.line(23), HasSubstr("^Q end"));
  EXPECT_LE(first.line(23).size(), 79u);
  model.on_key(kPageDown, kSmall);
  EXPECT_EQ(model.selected(), 12);
  EXPECT_THAT(model.draw(kSmall, 0).text(), HasSubstr(">13"));
  model.on_key(kEnd, kSmall);
  EXPECT_THAT(model.draw(kSmall, 0).line(0), HasSubstr("page 6/6"));
  EXPECT_THAT(model.draw({60, 200}, 0).line(0), Not(HasSubstr("page")));
}

TEST(WatchModel, ATerminalThatIsTooSmallIsTold) {
  WatchModel model = model_of(1);
  EXPECT_THAT(model.draw({5, 80}, 0).line(0), HasSubstr("needs 7 rows"));
  EXPECT_THAT(model.draw({24, 10}, 0).line(0), HasSubstr("a board"));
  EXPECT_EQ(model.draw({0, 0}, 0).text(), "");
  for (const Size size : {Size{5, 80}, {12, 40}, {24, 24}, {60, 200}}) {
    EXPECT_THAT(model.draw(size, 0).text(), HasSubstr("^Q end"));
  }
  // What matters most is left.
  WatchModel many = model_of(9);
  many.on_key(ctrl('P'), {12, 40});
  EXPECT_EQ(many.draw({12, 40}, 0).line(0), "kxo 4x4-3  page 1/5   DRAWING PAUSED");
}

TEST(WatchModel, KeysChangeAgentsOfTheSelectedBoardAndTheSpeed) {
  WatchModel model = model_of(4);
  model.on_key(kRight, kSmall);
  EXPECT_EQ(model.on_key('o', kSmall), Wish::kPlayers);
  EXPECT_EQ(model.selected(), 1);
  EXPECT_EQ(model.wanted_players().o, "random");
  EXPECT_EQ(model.wanted_players().x, "random");
  model.set_players(1, model.wanted_players());
  EXPECT_EQ(model.on_key('o', kSmall), Wish::kPlayers);
  EXPECT_EQ(model.wanted_players().o, "mcts");
  EXPECT_EQ(model.players(0).o, "perfect");

  EXPECT_EQ(model.on_key('+', kSmall), Wish::kRate);
  EXPECT_EQ(model.rate(), 20);
  EXPECT_EQ(model.on_key('-', kSmall), Wish::kRate);
  EXPECT_EQ(model.on_key('-', kSmall), Wish::kRate);
  EXPECT_EQ(model.rate(), 5);
  for (int i = 0; i < 9; ++i) model.on_key('-', kSmall);
  EXPECT_EQ(model.rate(), 1);
  EXPECT_EQ(model.on_key('-', kSmall), Wish::kNothing);
  for (int i = 0; i < 9; ++i) model.on_key('+', kSmall);
  EXPECT_EQ(model.rate(), 100);
  EXPECT_EQ(model.on_key(ctrl('Q'), kSmall), Wish::kEnd);
}

TEST(WatchModel, AGameTellsAllWhoPlayedInIt) {
  WatchModel model = model_of(1);
  model.add_move(0, 0);
  model.set_players(0, {"mcts", "random"});
  model.set_players(0, {"mcts", "random"});
  for (const int cell : {4, 1, 5, 2, 9}) model.add_move(0, cell);
  EXPECT_EQ(model.history(),
            "board 1 game 1: perfect, mcts - random: O wins: a1 a2 b1 b2 c1\n"
            "board 1 game 2: mcts - random: open: b3\n");
}

TEST(WatchModel, WinsAreThoseOfWhoIsNamedBesideThem) {
  WatchModel model = model_of(1);
  play_a_game(model, 0);
  model.set_players(0, {"perfect", "random"});  // as before
  EXPECT_THAT(model.draw(kSmall, 0).text(), HasSubstr("O perfect     1"));
  model.set_players(0, {"mcts", "random"});
  EXPECT_THAT(model.draw(kSmall, 0).text(), HasSubstr("O mcts        0"));
  EXPECT_EQ(model.games(), 1u);
}

TEST(WatchModel, AStuckBoardSaysSo) {
  WatchModel model = model_of(1);
  model.set_stuck(0);
  EXPECT_THAT(model.draw(kSmall, 0).text(), HasSubstr("cannot play"));
  model.set_players(0, {"mcts", "random"});
  EXPECT_THAT(model.draw(kSmall, 0).text(), Not(HasSubstr("cannot play")));
}

}  // namespace
}  // namespace tandem::screen
