// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/game_record.hpp"

#include <gtest/gtest.h>

#include <bit>

#include "tandem/kxo/random.hpp"

namespace tandem::screen {
namespace {

using namespace kxo;

std::string file(const std::string& lines) { return std::string(kGamesHeader) + lines; }
std::string error_of(const std::string& lines) {
  const auto games = parse_games(file(lines));
  return games ? "" : games.error();
}

TEST(GameRecord, GamesComeBackAsTheyWereWritten) {
  Random random({7, 0});
  std::vector<GameRecord> games;
  std::string text(kGamesHeader);
  for (int i = 0; i < 50; ++i) {
    GameRecord game;
    game.rules = Rules::make(3 + i % 6, 3 + i % 5, 3).value();
    game.o = "mcts:iterations=10,threads=2";
    game.x = "you";
    while (game.outcome() == Outcome::kOpen && random.below(20) != 0) {
      const Cells free = game.rules.free(game.position());
      game.moves.push_back(nth_cell(
          free, static_cast<int>(random.below(static_cast<std::uint64_t>(std::popcount(free))))));
    }
    text += record_text(game);
    games.push_back(game);
  }
  const auto again = parse_games(text);
  ASSERT_TRUE(again) << again.error();
  ASSERT_EQ(again->size(), games.size());
  for (std::size_t i = 0; i < games.size(); ++i) {
    EXPECT_EQ((*again)[i].rules, games[i].rules);
    EXPECT_EQ((*again)[i].o, games[i].o);
    EXPECT_EQ((*again)[i].x, games[i].x);
    EXPECT_EQ((*again)[i].moves, games[i].moves);
  }
}

TEST(GameRecord, AFileMayHaveCommentsBlankLinesAndMovesInSeveralLines) {
  const auto games = parse_games(
      file("# mine\r\n\ngame 3x3-3\nx  a name \nmoves a1\tb2\r\n  moves c3\n# open still"));
  ASSERT_TRUE(games) << games.error();
  ASSERT_EQ(games->size(), 1u);
  EXPECT_EQ(games->front().x, "a name");
  EXPECT_EQ(games->front().moves, (std::vector{0, 4, 8}));
  EXPECT_EQ(games->front().position(2), (Position{cell_bit(0), cell_bit(4)}));
  EXPECT_TRUE(parse_games(kGamesHeader)->empty());
}

TEST(GameRecord, ControlCharactersGetNeitherInNorOut) {
  GameRecord game;
  game.o =
      "a\nresult x\033[31m\xC2\x9B"
      "1m";
  game.x = "K\xC3\xB6nig";
  const auto games = parse_games(file("") + record_text(game));
  ASSERT_TRUE(games) << games.error();
  EXPECT_EQ(games->front().o, "a?result x?[31m?1m");
  EXPECT_EQ(games->front().x, game.x);
  for (const char* line : {"o \033[31mred", "\033]0;title\a", "x \x7F",
                           "x \xC2\x9B"
                           "31m"}) {
    EXPECT_EQ(error_of(std::string("game 4x4-3\n") + line), "line 3 has a control character")
        << line;
  }
}

TEST(GameRecord, WhatIsWrongIsSaidWithItsLine) {
  EXPECT_NE(parse_games("").error().find("not a file of games"), std::string::npos);
  EXPECT_NE(parse_games("kxo games 2\n").error().find("not a file of games"), std::string::npos);
  EXPECT_EQ(error_of("moves a1\n").substr(0, 8), "line 2: ");
  EXPECT_EQ(error_of("\ngame 4x4-9\n").substr(0, 8), "line 3: ");
  EXPECT_EQ(error_of("game 4x4-3\nmoves a1 a1\n"), "line 3: a1 is taken already");
  EXPECT_EQ(error_of("game 4x4-3\nmoves a1 e1\n").substr(0, 8), "line 3: ");
  EXPECT_EQ(error_of("game 4x4-3\nmoves a1 a2 b1 b2 c1 c2\n"),
            "line 3: c2 comes after the end of the game");
  EXPECT_EQ(error_of("game 4x4-3\nmoves a1 a2 b1 b2 c1\nresult x\n"),
            "line 4: the result is 'o', not 'x'");
  EXPECT_EQ(error_of("game 4x4-3\nresult draw\n"), "line 3: the result is 'open', not 'draw'");
  EXPECT_EQ(error_of("game 4x4-3\nplayer me\n"), "line 3: no line begins with 'player'");
}

}  // namespace
}  // namespace tandem::screen
