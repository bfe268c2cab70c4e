// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/training.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tandem/kxo/whole_file.hpp"

namespace tandem::kxo {
namespace {

using Method = Learning::Method;

TrainingPlan small_plan(int width, int goal) {
  TrainingPlan plan = TrainingPlan::of(*Rules::make(width, width, goal), Method::kTd);
  plan.generation = 16;
  plan.evaluate_every = 64;
  return plan;
}

/// Trains until there are `games`, with evaluations where they are due.
void train_until(Training& training, std::uint64_t games) {
  const auto players = players_here();
  for (;;) {
    if (training.evaluation_due()) training.evaluate();
    if (training.games() >= games) return;
    ASSERT_TRUE(training.train(players));
  }
}

/// What save() gives, but for the time it took.
std::string timeless(const Training& training) {
  std::string text = training.published();
  for (const Evaluation& point : training.curve()) {
    text += std::to_string(point.games) + ' ' + std::to_string(point.kept_share) + ' ' +
            std::to_string(point.points_share) + ' ' + std::to_string(point.lost_to_random) +
            (point.published ? " published\n" : "\n");
  }
  for (const std::uint32_t word : training.model().save()) text += std::to_string(word) + ' ';
  return text;
}

TEST(TrainingTest, GoesOnFromWhatWasSavedAsIfNothingHadHappened) {
  TrainingPlan network = small_plan(5, 4);
  network.evaluate_every = 160;
  using Stops = std::vector<std::uint64_t>;
  for (const auto& [plan, stops] :
       {std::pair{small_plan(3, 3), Stops{0, 16, 64, 176, 304}}, {network, Stops{176}}}) {
    Training whole(plan);
    train_until(whole, 320);
    for (const std::uint64_t stop : stops) {
      Training first(plan);
      train_until(first, stop);
      auto second = Training::load(first.save());
      ASSERT_TRUE(second) << second.error();
      EXPECT_EQ(second->plan(), plan);
      EXPECT_EQ(second->games(), stop);
      EXPECT_EQ(second->seconds(), first.seconds());
      train_until(*second, 320);
      EXPECT_EQ(timeless(*second), timeless(whole)) << stop;
    }
  }
}

TEST(TrainingTest, AGenerationThatIsInterruptedTeachesNothing) {
  Training training(small_plan(3, 3));
  int games = 0;
  EXPECT_FALSE(training.train(players_here([&] { return ++games > 10; })));
  EXPECT_EQ(training.games(), 0U);
  EXPECT_TRUE(training.model().save().empty());
  train_until(training, 160);
  Training other(small_plan(3, 3));
  train_until(other, 160);
  EXPECT_EQ(timeless(training), timeless(other));
}

// So that who plays them does not matter: here the second half of each generation comes first, and
// their lessons are said in pieces of all sizes.
TEST(TrainingTest, LearnsInTheOrderOfTheGamesWhoeverPlaysThem) {
  const auto halves = [](const ValueModel& model, const Learning& learning, std::uint64_t seed,
                         std::uint64_t first, std::uint64_t count, const Training::Learn& learn) {
    std::vector<Lesson> lessons, later;
    const auto into = [](std::vector<Lesson>& to) {
      return [&to](std::span<const Lesson> some) { to.insert(to.end(), some.begin(), some.end()); };
    };
    const auto here = players_here();
    EXPECT_TRUE(here(model, learning, seed, first + count / 2, count - count / 2, into(later)));
    EXPECT_TRUE(here(model, learning, seed, first, count / 2, into(lessons)));
    lessons.insert(lessons.end(), later.begin(), later.end());
    std::span<const Lesson> rest = lessons;
    for (std::size_t size = 0; !rest.empty(); size = std::min(size + 1, rest.size())) {
      learn(rest.first(size));
      rest = rest.subspan(size);
    }
    return true;
  };
  Training alone(small_plan(3, 3)), shared(small_plan(3, 3));
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(alone.train(players_here()));
    ASSERT_TRUE(shared.train(halves));
  }
  EXPECT_EQ(alone.model().save(), shared.model().save());
}

TEST(TrainingTest, TheRateFallsByHalfAfterThatManyGames) {
  Learning learning;
  learning.rate = 0.4;
  EXPECT_EQ(learning.rate_at(1'000'000), 0.4);
  learning.halved_after = 1000;
  EXPECT_DOUBLE_EQ(learning.rate_at(0), 0.4);
  EXPECT_DOUBLE_EQ(learning.rate_at(1000), 0.2);
  EXPECT_DOUBLE_EQ(learning.rate_at(3000), 0.1);
}

TEST(TrainingTest, PublishesOnlyWhatIsNoWorse) {
  TrainingPlan plan = small_plan(3, 3);
  plan.learning.exploration = 1;  // so that it goes up and down
  plan.learning.lambda = 1;
  Training training(plan);
  train_until(training, 6'400);
  double best = 0;
  std::uint64_t of = 0;
  int refused = 0;
  for (const Evaluation& point : training.curve()) {
    EXPECT_EQ(point.published, point.kept_share >= best) << point.games;
    if (point.published) {
      best = point.kept_share;
      of = point.games;
    }
    refused += point.published ? 0 : 1;
  }
  EXPECT_GT(refused, 3);
  EXPECT_EQ(training.published_games(), of);
  EXPECT_GT(best, training.curve().front().kept_share);
}

TEST(TrainingTest, WhereNothingIsSolvedGamesAgainstThePublishedModelDecide) {
  TrainingPlan plan = small_plan(5, 3);
  plan.evaluate_every = 320;
  Training training(plan);
  train_until(training, 1'600);
  const auto& curve = training.curve();
  ASSERT_EQ(curve.size(), 6U);
  EXPECT_TRUE(curve[0].published);
  EXPECT_EQ(curve[0].points_share, Evaluation::kUnknown);
  for (std::size_t i = 1; i < curve.size(); ++i) {
    EXPECT_EQ(curve[i].kept_share, Evaluation::kUnknown);
    EXPECT_EQ(curve[i].published, curve[i].points_share >= 0.5);
  }
  EXPECT_GT(curve[1].points_share, 0.55);  // than that which knows nothing
  EXPECT_LT(curve.back().lost_to_random, curve.front().lost_to_random);
}

TEST(TrainingTest, WhatSaveDidNotWriteIsRefused) {
  Training training(small_plan(3, 3));
  train_until(training, 64);
  const std::string whole = training.save();
  ASSERT_TRUE(Training::load(whole));
  for (std::size_t size = 0; size < whole.size(); size += size < 200 ? 1 : 41) {
    EXPECT_FALSE(Training::load(whole.substr(0, size))) << size;
  }
  for (std::size_t at = 0; at < whole.size(); at += 7) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 4);
    EXPECT_FALSE(Training::load(changed)) << at;
  }
  EXPECT_FALSE(Training::load(whole + '\0'));
  std::string newer = whole;
  newer[8] = 2;
  EXPECT_EQ(Training::load(newer).error(), "has version 2, known is 1");
  EXPECT_EQ(Training::load("something else").error(), "is no training of kxo");
}

/// `bytes` with other contents but a good checksum, as somebody may forge them.
std::string forged(std::string bytes, std::size_t at, std::uint64_t word, std::size_t size) {
  std::memcpy(bytes.data() + at, &word, size);
  const std::size_t end = bytes.size() - 8;
  const std::uint64_t sum = fnv1a(std::string_view(bytes).substr(0, end));
  std::memcpy(bytes.data() + end, &sum, 8);
  return bytes;
}

TEST(TrainingTest, AForgedOneIsRefusedWherePlanOrSizesMakeNoSense) {
  Training training(small_plan(3, 3));
  train_until(training, 64);
  const std::string whole = training.save();
  EXPECT_EQ(Training::load(forged(whole, 12, 99, 4)).error(), "is of no game");
  EXPECT_EQ(Training::load(forged(whole, 24, 7, 4)).error(), "names no method");
  EXPECT_EQ(Training::load(forged(whole, 28, 0x7ff8000000000000, 8)).error(),
            "lambda is not in [0, 1]");
  // Games, seconds and the first evaluation, which the published model is looked up by.
  const std::uint64_t nan = 0x7ff8000000000000, infinite = 0x7ff0000000000000;
  for (const auto& [at, word, size] :
       {std::tuple<std::size_t, std::uint64_t, std::size_t>{96, ~0U, 8},
        {96, ~std::uint64_t{0} - 15, 8},
        {96, 1, 8},
        {104, nan, 8},
        {104, infinite, 8},
        {120, 1 << 20, 8},
        {128, nan, 8},
        {136, nan, 8},
        {152, infinite, 8},
        {160, 0, 4}}) {
    const auto loaded = Training::load(forged(whole, at, word, size));
    ASSERT_FALSE(loaded) << at;
    EXPECT_EQ(loaded.error(), "has numbers that make no sense") << at;
  }
  // Whatever word is forged, nothing is read beyond the end or allocated without bound.
  for (std::size_t at = 12; at + 12 < whole.size(); at += at < 200 ? 4 : 404) {
    (void)Training::load(forged(whole, at, 0xffffffff, 4));
  }
}

TEST(TrainingTest, APlanOutOfItsRangesIsTold) {
  const auto error = [](auto change) {
    TrainingPlan plan;
    change(plan);
    const auto checked = plan.check();
    return checked ? std::string() : checked.error();
  };
  EXPECT_EQ(error([](TrainingPlan&) {}), "");
  EXPECT_EQ(error([](TrainingPlan& p) { p.learning.rate = 0; }), "rate is not in (0, 1]");
  EXPECT_EQ(error([](TrainingPlan& p) { p.learning.lambda = -0.1; }), "lambda is not in [0, 1]");
  EXPECT_EQ(error([](TrainingPlan& p) { p.generation = 0; }), "generation is not in [1, 1048576]");
}

}  // namespace
}  // namespace tandem::kxo
