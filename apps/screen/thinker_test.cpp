// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/thinker.hpp"

#include <gtest/gtest.h>

namespace tandem::screen {
namespace {

Thinker::Question question(const char* agent, kxo::Position position = {}) {
  return {agent, kxo::Rules::standard(), position, {1, 2}, {}};
}

TEST(Thinker, AnswersAsTheAgentDoes) {
  Thinker thinker;
  auto agent = kxo::make_agent("random", kxo::Rules::standard()).value();
  kxo::Position position;
  for (int i = 0; i < 4; ++i) {
    agent->begin({1, 2});
    const int expected = agent->choose(position).value();
    thinker.ask(question("random", position));
    EXPECT_TRUE(thinker.busy());
    EXPECT_EQ(thinker.wait().value(), expected);
    EXPECT_FALSE(thinker.busy());
    EXPECT_FALSE(thinker.answer());
    position = position.after(expected);
  }
}

TEST(Thinker, OnlyTheLastQuestionIsAnswered) {
  Thinker thinker;
  for (int i = 0; i < 100; ++i) {
    thinker.ask(question("mcts:iterations=500"));
    thinker.ask(question("random", kxo::Position{0x7FFF & 0x5555, 0x7FFF & 0xAAAA & ~0x8000}));
    if (i % 2 == 0) thinker.forget();
    thinker.ask(question(
        "negamax", {kxo::cell_bit(0) | kxo::cell_bit(1), kxo::cell_bit(12) | kxo::cell_bit(15)}));
    EXPECT_EQ(thinker.wait().value(), 2);
  }
  thinker.forget();
  EXPECT_FALSE(thinker.busy());
  EXPECT_FALSE(thinker.answer());
}

TEST(Thinker, ErrorsAreAnswers) {
  Thinker thinker;
  thinker.ask(question("nobody"));
  const auto answer = thinker.wait();
  ASSERT_FALSE(answer);
  EXPECT_NE(answer.error().find("no agent 'nobody'"), std::string::npos);
  thinker.ask(question("random", {1, 1}));
  EXPECT_FALSE(thinker.wait());
  thinker.ask(question("random"));
  EXPECT_TRUE(thinker.wait());
}

TEST(Thinker, MayEndAmidAThought) {
  for (int i = 0; i < 20; ++i) {
    Thinker thinker;
    thinker.ask(question("mcts:iterations=2000"));
  }
}

}  // namespace
}  // namespace tandem::screen
