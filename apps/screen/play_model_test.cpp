// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/play_model.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/screen/board_view.hpp"
#include "apps/screen/keys.hpp"
#include "tandem/kxo/notation.hpp"

namespace tandem::screen {
namespace {

using testing::HasSubstr;
using Wish = PlayModel::Wish;

constexpr Size kSmall{24, 80};

PlayModel model_of(const char* game = "4x4-3", kxo::Player person = kxo::Player::kO) {
  PlayModel::Setup setup;
  setup.rules = kxo::parse_game(game).value();
  setup.person = person;
  setup.agent = "random";
  setup.agents = {"mcts", "random"};
  return PlayModel(setup);
}

void type(PlayModel& model, const char* keys) {
  for (; *keys != 0; ++keys) model.on_key(*keys);
}

TEST(PlayModel, AMoveIsTypedOrPlayedUnderTheCursor) {
  PlayModel model = model_of();
  type(model, "b1");
  EXPECT_EQ(model.game().moves, std::vector{1});
  model.agent_moves(0);
  model.on_key(kDown);
  model.on_key(kRight);
  model.on_key(kRight);
  model.on_key(kRight);  // stays at the edge
  model.on_key(kEnter);
  EXPECT_EQ(model.last(), 7);
}

TEST(PlayModel, IllegalMovesAreToldAndChangeNothing) {
  PlayModel model = model_of();
  type(model, "b2");
  type(model, "c3");
  EXPECT_EQ(model.message(), "it is the turn of random");
  model.agent_moves(0);
  type(model, "b2");
  EXPECT_EQ(model.message(), "b2 is taken by O");
  type(model, "a9");
  EXPECT_THAT(model.message(), HasSubstr("not on the board"));
  EXPECT_EQ(model.game().moves.size(), 2u);
  EXPECT_TRUE(model.persons_turn());
}

TEST(PlayModel, RowsOfTwoDigitsWaitForTheSecondOrEnter) {
  PlayModel model = model_of("2x12-5");
  type(model, "a1");
  EXPECT_TRUE(model.game().moves.empty());
  EXPECT_THAT(model.draw({24, 80}, false).text(), HasSubstr("> a1_"));
  model.on_key(kEnter);
  EXPECT_EQ(model.game().moves, std::vector{0});
  model.agent_moves(1);
  type(model, "a12");
  EXPECT_EQ(model.last(), 22);
}

TEST(PlayModel, LettersOfColumnsAreMovesAndUpperCaseIsACommand) {
  PlayModel model = model_of("9x7-5");
  EXPECT_EQ(model.on_key('h'), Wish::kNothing);  // column h
  EXPECT_EQ(model.on_key('2'), Wish::kNothing);
  EXPECT_EQ(model.last(), 9 + 7);
  model.agent_moves(0);
  EXPECT_EQ(model.on_key('H'), Wish::kHint);
  EXPECT_EQ(model.on_key('n'), Wish::kNewGame);
  EXPECT_EQ(model_of().on_key('h'), Wish::kHint);
  EXPECT_EQ(model.on_key(ctrl('Q')), Wish::kQuit);
}

TEST(PlayModel, HelpAndMessagesNameKeysThatWork) {
  EXPECT_THAT(model_of("7x7-5").draw(kSmall, false).text(), HasSubstr("h  hint"));
  const std::string wide = model_of("8x8-5").draw(kSmall, false).text();
  EXPECT_THAT(wide, HasSubstr("H  hint"));
  EXPECT_THAT(wide, HasSubstr("n  new game"));
  EXPECT_THAT(model_of("14x3-3").draw({24, 80}, false).text(), HasSubstr("N  new game"));
  // No room beside the board.
  EXPECT_THAT(model_of("21x3-3").draw(kSmall, false).line(1),
              HasSubstr("H hint  U undo  N new  T other  ^Q end"));
  PlayModel model = model_of("14x1-1");
  type(model, "b1");
  EXPECT_THAT(model.message(), HasSubstr("you won; N: new game"));
  EXPECT_EQ(model.on_key('N'), Wish::kNewGame);
  type(model, "c1");
  EXPECT_EQ(model.message(), "the game is over; N: new game");
}

TEST(PlayModel, UndoGoesBackBeforeThePersonsLastMove) {
  PlayModel model = model_of();
  EXPECT_EQ(model.on_key('u'), Wish::kNothing);
  EXPECT_EQ(model.message(), "you have no move to take back");
  type(model, "a1");
  EXPECT_EQ(model.on_key('u'), Wish::kTakenBack);  // while the agent thinks
  EXPECT_TRUE(model.game().moves.empty());
  type(model, "a1");
  model.agent_moves(1);
  type(model, "b2");
  model.agent_moves(2);
  EXPECT_EQ(model.on_key('u'), Wish::kTakenBack);
  EXPECT_EQ(model.game().moves, (std::vector{0, 1}));

  PlayModel second = model_of("4x4-3", kxo::Player::kX);
  second.agent_moves(0);
  EXPECT_EQ(second.on_key('u'), Wish::kNothing);
  type(second, "b1");
  EXPECT_EQ(second.on_key('u'), Wish::kTakenBack);
  EXPECT_EQ(second.game().moves, std::vector{0});
}

TEST(PlayModel, ResultsCountAndUndoTakesThemBack) {
  PlayModel model = model_of();
  for (const char* move : {"a1", "b1", "c1"}) {
    type(model, move);
    if (!model.is_over()) model.agent_moves(static_cast<int>(model.game().moves.size()) + 7);
  }
  EXPECT_TRUE(model.is_over());
  EXPECT_THAT(model.message(), HasSubstr("O wins: you won"));
  EXPECT_THAT(model.draw(kSmall, false).line(0), HasSubstr("won 1, lost 0"));
  type(model, "d4");
  EXPECT_THAT(model.message(), HasSubstr("the game is over"));
  model.on_key('u');
  EXPECT_THAT(model.draw(kSmall, false).line(0), HasSubstr("won 0, lost 0"));
  EXPECT_FALSE(model.is_over());
  EXPECT_EQ(model.on_key('n'), Wish::kNewGame);
  model.new_game();
  EXPECT_TRUE(model.game().moves.empty());
}

TEST(PlayModel, TheOpponentChangesAmidAGame) {
  PlayModel model = model_of();
  type(model, "a1");
  EXPECT_EQ(model.on_key('t'), Wish::kAgent);
  EXPECT_EQ(model.agent(), "mcts");
  EXPECT_EQ(model.game().x, "random; mcts");
  EXPECT_EQ(model.on_line("against mcts:iterations=10"), Wish::kAgent);
  EXPECT_EQ(model.agent(), "mcts:iterations=10");
  model.new_game();
  EXPECT_EQ(model.game().x, "mcts:iterations=10");
}

TEST(PlayModel, AnOpponentThatIsNoneIsToldAndTheOldOneStays) {
  PlayModel::Setup setup;
  setup.agent = "random";
  setup.wrong_with = [](const std::string& agent) {
    return agent == "nobody" ? "no agent 'nobody'" : "";
  };
  PlayModel model(setup);
  EXPECT_EQ(model.on_line("against nobody"), Wish::kUnknown);
  EXPECT_EQ(model.message(), "no agent 'nobody'");
  EXPECT_EQ(model.agent(), "random");
  EXPECT_EQ(model.on_line("against mcts"), Wish::kAgent);
  EXPECT_EQ(model.agent(), "mcts");
}

TEST(PlayModel, LinesAreMovesOrWords) {
  PlayModel model = model_of();
  EXPECT_EQ(model.on_line("  B2 \r"), Wish::kNothing);
  EXPECT_EQ(model.last(), 5);
  model.agent_moves(0);
  EXPECT_EQ(model.on_line("HINT"), Wish::kHint);
  EXPECT_EQ(model.on_line("b2"), Wish::kUnknown);
  EXPECT_EQ(model.on_line("wat"), Wish::kUnknown);
  EXPECT_EQ(model.on_line("h"), Wish::kHint);  // as messages say
  EXPECT_EQ(model.on_line("T"), Wish::kAgent);
  EXPECT_EQ(model.on_line("n"), Wish::kNewGame);
  EXPECT_EQ(model.on_line("b"), Wish::kUnknown);
  EXPECT_THAT(model.message(), HasSubstr("there are:"));
  EXPECT_EQ(model.on_line("# a comment"), Wish::kNothing);
  EXPECT_EQ(model.on_line("undo"), Wish::kTakenBack);
  EXPECT_EQ(model.on_line("quit"), Wish::kQuit);
  EXPECT_EQ(model.on_line("new"), Wish::kNewGame);
}

TEST(PlayModel, TheScreenShowsBoardCursorTurnAndHelp) {
  PlayModel model = model_of();
  type(model, "a1");
  model.agent_moves(1);
  const std::string text = model.draw(kSmall, false).text();
  for (const char* words :
       {"kxo 4x4-3   you (O) against random", "a   b   c   d", "|[O]| X |", "your turn, O",
        "random played b1", "moves: a1 b1", "u  undo", "^Q  end"}) {
    EXPECT_THAT(text, HasSubstr(words));
  }
  EXPECT_THAT(model.draw(kSmall, true).text(), HasSubstr("random thinks"));
}

TEST(PlayModel, HowItEndsIsSaidInEverySize) {
  for (const char* game : {"4x4-3", "8x8-5", "20x3-3", "3x3-3"}) {
    const PlayModel model = model_of(game);
    for (const Size size : {Size{24, 80}, {12, 40}, {14, 40}, {60, 200}, {5, 40}, {24, 30}}) {
      const Canvas canvas = model.draw(size, false);
      EXPECT_THAT(canvas.text(), HasSubstr("^Q")) << game << '\n' << canvas.text();
    }
  }
  // What is said stands near the board.
  EXPECT_THAT(model_of("4x4-3").draw({60, 200}, false).line(13), HasSubstr("your turn"));
}

TEST(PlayModel, LargeBoardsStandCloserAndTooLargeOnesAreTold) {
  PlayModel model = model_of("9x7-5");
  EXPECT_THAT(model.draw({20, 80}, false).text(), testing::Not(HasSubstr("+---+")));
  EXPECT_THAT(model.draw({20, 80}, false).text(), HasSubstr("a  b  c"));
  EXPECT_THAT(model.draw({10, 80}, false).line(0), HasSubstr("the board needs 13 rows"));
}

TEST(PlayModel, AHintMovesTheCursor) {
  PlayModel model = model_of();
  model.show_hint(5, "wins in 5 moves");
  EXPECT_EQ(model.message(), "hint: b2, wins in 5 moves");
  model.on_key(kEnter);
  EXPECT_EQ(model.last(), 5);
}

TEST(BoardView, TheTextForPipesMarksTheLastMove) {
  const kxo::Rules rules = kxo::Rules::make(3, 2, 2).value();
  EXPECT_EQ(board_text(rules, {kxo::cell_bit(0), kxo::cell_bit(4)}, 4),
            "    a  b  c\n 1  O  .  .\n 2  . [X] .\n");
}

}  // namespace
}  // namespace tandem::screen
