// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/thinker.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

namespace tandem::screen {
namespace {

std::atomic<bool> began{false}, go_on{false};

/// Says when it is asked, and answers with cell 15 when it is let.
class SlowAgent final : public kxo::Agent {
 public:
  using Agent::Agent;

 private:
  Result<int> do_choose(const kxo::Position&, const kxo::Budget&) override {
    began = true;
    while (!go_on) std::this_thread::yield();
    return 15;
  }
};

const kxo::AgentRegistration slow({"test-slow", "for tests",
                                   [](const kxo::Rules& rules, kxo::AgentOptions&)
                                       -> Result<std::unique_ptr<kxo::Agent>, std::string> {
                                     return std::unique_ptr<kxo::Agent>(
                                         std::make_unique<SlowAgent>(rules));
                                   }});

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
  const kxo::Position wins_by_2{kxo::cell_bit(0) | kxo::cell_bit(1),
                                kxo::cell_bit(12) | kxo::cell_bit(15)};
  for (int i = 0; i < 20; ++i) {
    Thinker thinker;
    began = go_on = false;
    thinker.ask(question("test-slow"));
    while (!began) std::this_thread::yield();
    if (i % 2 == 0) thinker.forget();
    thinker.ask(question("random"));
    thinker.ask(question("negamax", wins_by_2));
    EXPECT_FALSE(thinker.answer());
    go_on = true;
    EXPECT_EQ(thinker.wait().value(), 2);
    EXPECT_FALSE(thinker.answer());
  }
}

TEST(Thinker, WhatIsForgottenIsNotAnswered) {
  Thinker thinker;
  began = go_on = false;
  thinker.ask(question("test-slow"));
  while (!began) std::this_thread::yield();
  thinker.forget();
  EXPECT_FALSE(thinker.busy());
  go_on = true;
  thinker.ask(question("test-slow"));  // answered after the first one
  EXPECT_EQ(thinker.wait().value(), 15);
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
  thinker.ask(question("external:command=exit 0"));
  EXPECT_EQ(thinker.wait().error(),
            "external:command=exit 0: its program has ended, or could not be started");
  thinker.ask(question("random"));
  EXPECT_TRUE(thinker.wait());
}

/// One that would take an hour.
Thinker::Question long_question() {
  Thinker::Question question{"mcts:time=3600s", *kxo::Rules::make(8, 8, 6), {}, {1, 2}, {}};
  return question;
}

TEST(Thinker, AThoughtThatNobodyWaitsForIsStopped) {
  Thinker thinker;
  for (int i = 0; i < 10; ++i) {
    thinker.ask(long_question());
    EXPECT_FALSE(thinker.wait_for(std::chrono::milliseconds(i % 2 == 0 ? 0 : 20)));
    if (i % 3 == 0) thinker.forget();
    thinker.ask(question("random"));
    EXPECT_TRUE(thinker.wait());
  }
  thinker.ask(long_question());  // and this one ends with the thinker
}

TEST(Thinker, MayEndAmidAThought) {
  for (int i = 0; i < 20; ++i) {
    Thinker thinker;
    thinker.ask(question("mcts:iterations=2000"));
  }
}

}  // namespace
}  // namespace tandem::screen
