// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/notation.hpp"

#include <gtest/gtest.h>

#include <set>

#include "tandem/kxo/detail/test_agents.hpp"

namespace tandem::kxo {
namespace {

using detail::after;

TEST(NotationTest, GamesAreReadAsTheyAreWritten) {
  for (const char* text : {"4x4-3", "7x7-5", "64x1-64", "1x1-1", "5x3-4"}) {
    const auto rules = parse_game(text);
    ASSERT_TRUE(rules) << rules.error();
    EXPECT_EQ(game_name(*rules), text);
  }
  EXPECT_EQ(parse_game("5x3-4")->width(), 5);
}

TEST(NotationTest, WhatIsNoGameIsRefused) {
  for (const char* text : {"", "4", "4x4", "4x4-", "x4-3", "4x-3", "4x4-3 ", " 4x4-3", "4X4-3",
                           "4x4-3x", "-4x4-3", "4x-4-3", "4x4--3", "99999999999x1-1", "a"}) {
    EXPECT_NE(parse_game(text).error().find("write WIDTHxHEIGHT-GOAL"), std::string::npos) << text;
  }
  for (const char* text : {"9x9-5", "0x4-3", "4x4-5", "4x4-0", "2147483647x2-1"}) {
    EXPECT_NE(parse_game(text).error().find("1 to 64 cells"), std::string::npos) << text;
  }
}

TEST(NotationTest, CellsAreColumnAndRowFromTheTopLeft) {
  const Rules rules = *Rules::make(5, 3, 3);
  EXPECT_EQ(cell_name(rules, 0), "a1");
  EXPECT_EQ(cell_name(rules, 6), "b2");
  EXPECT_EQ(cell_name(rules, 14), "e3");
  EXPECT_EQ(*parse_cell(rules, "E3"), 14);
  EXPECT_EQ(cell_names(rules, 0b1000001), "a1 b2");
  EXPECT_EQ(cell_names(rules, 0), "");
}

TEST(NotationTest, EveryCellOfEveryBoardHasANameOfItsOwn) {
  for (int width = 1; width <= 64; ++width) {
    const Rules rules = *Rules::make(width, 64 / width, 1);
    std::set<std::string> names;
    for (int cell = 0; cell < rules.cells(); ++cell) {
      const std::string name = cell_name(rules, cell);
      EXPECT_TRUE(names.insert(name).second) << name;
      EXPECT_EQ(*parse_cell(rules, name), cell) << name;
    }
  }
}

TEST(NotationTest, WhatIsNoCellIsRefused) {
  const Rules rules = Rules::standard();
  for (const char* text : {"", "b", "2", "2b", "b2x", "b-2", "b 2", "!", "abcd1"}) {
    EXPECT_NE(parse_cell(rules, text).error().find("is no cell"), std::string::npos) << text;
  }
  for (const char* text : {"e1", "a5", "a0", "aa1", "zzz1"}) {
    EXPECT_EQ(parse_cell(rules, text).error(),
              "'" + std::string(text) + "' is not on the board, whose cells are a1 to d4");
  }
}

TEST(NotationTest, PositionsAreMovesOrRows) {
  const Rules rules = *Rules::make(3, 2, 3);
  EXPECT_EQ(*parse_position(rules, ""), Position{});
  EXPECT_EQ(*parse_position(rules, " "), Position{});
  EXPECT_EQ(*parse_position(rules, "b2 a1"), after(4, 0));
  EXPECT_EQ(*parse_position(rules, " b2,a1 , c1 "), after(4, 0, 2));
  EXPECT_EQ(*parse_position(rules, "x../.O."), after(4, 0));
  EXPECT_EQ(position_name(rules, after(4, 0)), "x../.o.");
  // Where a game ended.
  EXPECT_EQ(*parse_position(rules, "ooo/xx."), after(0, 3, 1, 4, 2));
  EXPECT_EQ(*parse_position(rules, "a1 a2 b1 b2 c1"), after(0, 3, 1, 4, 2));
}

TEST(NotationTest, PositionsThatNoGameHasAreRefused) {
  const Rules rules = *Rules::make(3, 3, 3);
  const auto error = [&](const char* text) { return parse_position(rules, text).error(); };
  EXPECT_EQ(error("b2 b2"), "'b2' is taken already");
  EXPECT_EQ(error("a1 a2 b1 b2 c1 c2"), "'c2' comes after the end of the game");
  EXPECT_EQ(error("b2 z9"), "'z9' is not on the board, whose cells are a1 to c3");
  EXPECT_EQ(error("b2 .x."), "'.x.' is no cell: write its column and row, such as b2");
  EXPECT_EQ(error("o../..."), "'o../...' has 6 cells, not 9");
  for (const char* text :
       {"o../.../.../", "o..../..../", "/o../.../...", "o../.../....", "o.//.../..."}) {
    EXPECT_EQ(error(text), "'" + std::string(text) + "' is not 3 rows of 3 cells");
  }
  EXPECT_EQ(error("oo./.../..."),
            "'oo./.../...': O has put 2 and X 0, but O begins and they take turns");
  EXPECT_EQ(error("x../.../..."),
            "'x../.../...': O has put 0 and X 1, but O begins and they take turns");
  EXPECT_EQ(error("ooo/xxx/..."), "'ooo/xxx/...': the game was over before X moved");
  EXPECT_EQ(error("ooo/xx./.x."), "'ooo/xx./.x.': the game was over before X moved");
  // One move can complete two rows that meet, but not two that do not.
  EXPECT_TRUE(parse_position(rules, "ooo/oxx/oxx"));
  EXPECT_EQ(parse_position(Rules::standard(), "ooo./xx.x/..xx/ooo.").error(),
            "'ooo./xx.x/..xx/ooo.': no last move completes all these rows");
}

}  // namespace
}  // namespace tandem::kxo
