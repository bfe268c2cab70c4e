// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/learner.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <string>

#include "tandem/kxo/detail/test_agents.hpp"
#include "tandem/kxo/regret.hpp"

namespace tandem::kxo {
namespace {

using Method = Learning::Method;

std::unique_ptr<ValueModel> learned(const Rules& rules, Method method, std::uint64_t games) {
  auto model = ValueModel::make(rules);
  const Learning learning = Learning::of(method, model->kind());
  for (std::uint64_t game = 0; game < games; ++game) learn_from_game(*model, learning, {1, game});
  return model;
}

double kept_share(std::string_view agent, const Rules& rules) {
  const auto solution = *Solution::shared(rules);
  return measure_regret(*detail::agent_of(agent, rules), *solution, 500, 1)->kept_share();
}

// Upstream's learning ended below its initial policy.
TEST(LearnerTest, LearnsToPlayBetterThanItBegan) {
  for (const int goal : {3, 4}) {
    const Rules rules = *Rules::make(4, 4, goal);
    const auto solution = *Solution::shared(rules);  // solved once for all
    for (const std::string name : {"td", "q"}) {
      const double initial = kept_share(name + ":games=0", rules);
      const double trained = kept_share(name + ":games=60000", rules);
      EXPECT_GT(trained, initial + 0.05) << name << ' ' << goal;
    }
  }
}

TEST(LearnerTest, ASmallGameIsLearnedPerfectly) {
  const Rules rules = *Rules::make(3, 3, 3);
  EXPECT_EQ(kept_share("q:games=20000", rules), 1);
  EXPECT_GE(kept_share("td:games=40000", rules), 0.99);
}

// Upstream updated one table for each ply, whoever moved, and rewarded moves that ended nothing.
TEST(LearnerTest, BothPlayersLearnAndValuesHaveTheSignOfPerfectPlay) {
  const Rules rules = *Rules::make(3, 3, 3);
  const auto solution = *Solution::shared(rules);
  const auto model = learned(rules, Method::kQ, 30'000);
  int of_o = 0, of_x = 0;
  for (Cells o = 0; o <= rules.all(); ++o) {
    for (Cells x = 0; x <= rules.all(); ++x) {
      const Position position{o, x};
      const int ahead = std::popcount(o) - std::popcount(x);
      if ((o & x) != 0 || ahead < 0 || ahead > 1) continue;
      if (rules.outcome(position) != Outcome::kOpen) continue;
      const float value = model->value(position);  // for who moved last
      if (value == 0) continue;                    // or not visited
      const Value::Kind kind = solution->value(position).kind;
      ASSERT_EQ(kind, value > 0 ? Value::Kind::kLoss : Value::Kind::kWin) << o << ' ' << x;
      ++(position.to_move() == Player::kO ? of_x : of_o);
    }
  }
  EXPECT_GT(of_o, 200);
  EXPECT_GT(of_x, 200);
}

// So that training goes on where it was interrupted, with the same result.
TEST(LearnerTest, TheSameGamesMakeTheSameModelAlsoFromAFile) {
  for (const Rules& rules : {*Rules::make(3, 3, 3), *Rules::make(5, 5, 4)}) {
    const auto whole = learned(rules, Method::kTd, 60);
    auto first = ValueModel::make(rules);
    const Learning learning = Learning::of(Method::kTd, first->kind());
    for (std::uint64_t game = 0; game < 30; ++game) learn_from_game(*first, learning, {1, game});
    auto second = ValueModel::make(rules);
    ASSERT_TRUE(second->load(first->save()));
    for (std::uint64_t game = 30; game < 60; ++game) learn_from_game(*second, learning, {1, game});
    EXPECT_EQ(second->save(), whole->save());
  }
}

TEST(LearnerTest, ANetworkLearnsOnLargeBoards) {
  const Rules rules = *Rules::make(5, 5, 3);
  const auto trained = learned(rules, Method::kTd, 1'000);
  const auto initial = ValueModel::make(rules);
  int won = 0;
  for (std::uint64_t game = 0; game < 100; ++game) {
    Random random({2, game});
    Position position;
    const Player learner = game % 2 == 0 ? Player::kO : Player::kX;
    while (rules.outcome(position) == Outcome::kOpen) {
      const ValueModel& model = position.to_move() == learner ? *trained : *initial;
      position = position.after(greedy_move(model, position, random));
    }
    won += rules.outcome(position) == (learner == Player::kO ? Outcome::kO : Outcome::kX);
  }
  EXPECT_GT(won, 55);
}

TEST(LearnedAgentTest, AgentsWithoutAFilePlayTheSame) {
  const Rules rules = *Rules::make(3, 3, 3);
  const auto a = detail::agent_of("td:games=500", rules);
  const auto b = detail::agent_of("td:games=500", rules);
  EXPECT_EQ(detail::game_between(*a, *a, {1, 1}), detail::game_between(*b, *b, {1, 1}));
  EXPECT_FALSE(make_agent("td", *Rules::make(5, 5, 4)));
  EXPECT_TRUE(make_agent("td:games=3", *Rules::make(5, 5, 4)));
}

}  // namespace
}  // namespace tandem::kxo
