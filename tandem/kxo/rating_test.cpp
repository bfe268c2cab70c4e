// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/rating.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "tandem/kxo/random.hpp"

namespace tandem::kxo {
namespace {

TEST(RatingTest, ScoresAndEloAreTheLogisticCurve) {
  EXPECT_DOUBLE_EQ(score_of_elo(0), 0.5);
  EXPECT_DOUBLE_EQ(score_of_elo(400), 10.0 / 11);
  EXPECT_NEAR(elo_of_score(0.75), 190.8485, 1e-4);
  for (const double elo : {-700.0, -3.0, 12.5, 250.0}) {
    EXPECT_NEAR(elo_of_score(score_of_elo(elo)), elo, 1e-9);
  }
  EXPECT_EQ(elo_of_score(0), -INFINITY);
  EXPECT_EQ(elo_of_score(1), INFINITY);
}

TEST(RatingTest, ThePointsOfPairs) {
  const PairCounts counts{{1, 2, 3, 4, 5}};
  EXPECT_EQ(counts.pairs(), 15U);
  EXPECT_DOUBLE_EQ(counts.score(), (2 * 0.25 + 3 * 0.5 + 4 * 0.75 + 5) / 15);
  EXPECT_DOUBLE_EQ(counts.swapped().score(), 1 - counts.score());
  EXPECT_EQ(PairCounts{}.score(), 0.5);
  PairCounts sum = counts;
  sum += counts.swapped();
  EXPECT_EQ(sum, (PairCounts{{6, 6, 6, 6, 6}}));
}

// By hand: mean 0.6, the mean square deviation 0.07125, of 40 pairs: 0.26693 / 6.3246 = 0.042205.
TEST(RatingTest, TheErrorIsThatOfPairs) {
  const Elo elo = elo_of({{2, 6, 12, 14, 6}});
  const double score = (6 * 0.25 + 12 * 0.5 + 14 * 0.75 + 6) / 40;
  EXPECT_NEAR(score, 0.6, 1e-12);
  EXPECT_NEAR(elo.elo, 70.4365, 1e-3);
  EXPECT_NEAR(elo.low, elo_of_score(0.6 - 1.959964 * 0.0422049), 1e-2);
  EXPECT_NEAR(elo.high, elo_of_score(0.6 + 1.959964 * 0.0422049), 1e-2);
  EXPECT_NEAR(elo.superiority, 0.99109, 1e-4);  // Phi(2.36939)
  EXPECT_NEAR(elo_of(PairCounts{{2, 6, 12, 14, 6}}.swapped()).superiority, 1 - 0.99109, 1e-4);
}

// Games whose results depend on the opening alone say nothing about the players, and much less
// about the opening's noise than as many single games would.
TEST(RatingTest, WhatTheOpeningDecidesIsNoDifference) {
  const Elo elo = elo_of({{0, 0, 100, 0, 0}});
  EXPECT_EQ(elo.elo, 0);
  EXPECT_EQ(elo.error(), 0);
  EXPECT_EQ(elo.superiority, 0.5);
}

TEST(RatingTest, TheEndsOfTheScale) {
  const Elo won = elo_of({{0, 0, 0, 0, 3}});
  EXPECT_EQ(won.elo, INFINITY);
  EXPECT_EQ(won.superiority, 1);
  const Elo nothing = elo_of({});
  EXPECT_EQ(nothing.elo, 0);
  EXPECT_EQ(nothing.error(), INFINITY);
  EXPECT_EQ(nothing.superiority, 0.5);
}

// Results that the authors of a chess program published with their changes, in 2020 and 2021:
// pairs, both hypotheses, and what fishtest computed, to two places.
TEST(SprtTest, IsWhatFishtestPublished) {
  struct Published {
    PairCounts counts;
    double elo0, elo1, llr;
  };
  for (const auto& [counts, elo0, elo1, llr] : {
           Published{{{253, 4282, 17604, 4431, 286}}, -0.25, 1.25, 2.94},  // Stockfish #3209
           Published{{{58, 3302, 33130, 3518, 84}}, 0.25, 1.25, 2.97},
           Published{{{17, 253, 1042, 337, 39}}, -0.5, 1.5, 2.96},  // #2971
           Published{{{11, 407, 3238, 513, 11}}, 0.25, 1.75, 2.93},
           Published{{{424, 2948, 5832, 3045, 460}}, -1, 3, 2.94},      // #2493
           Published{{{59, 754, 2467, 865, 75}}, -0.5, 1.5, 2.95},      // #2951
           Published{{{53, 2220, 21459, 2445, 47}}, 0.25, 1.25, 2.97},  // #3098
       }) {
    EXPECT_NEAR((Sprt{elo0, elo1, 0.05, 0.05}.llr(counts)), llr, 0.006) << counts.of[0];
  }
}

TEST(SprtTest, TheBoundsAreWalds) {
  const Sprt test;
  EXPECT_NEAR(test.lower(), -2.9444, 1e-4);
  EXPECT_NEAR(test.upper(), 2.9444, 1e-4);
  const Sprt uneven{0, 10, 0.01, 0.2};
  EXPECT_NEAR(uneven.lower(), std::log(0.2 / 0.99), 1e-12);
  EXPECT_NEAR(uneven.upper(), std::log(0.8 / 0.01), 1e-12);
}

TEST(SprtTest, TheVerdictIsThatOfTheRatio) {
  const Sprt test{0, 10, 0.05, 0.05};
  EXPECT_EQ(test.llr({}), 0);
  EXPECT_EQ(test.verdict({}), Sprt::Verdict::kOpen);
  EXPECT_EQ(test.verdict({{0, 0, 1, 0, 0}}), Sprt::Verdict::kOpen);
  EXPECT_EQ(test.verdict({{100, 200, 300, 300, 200}}), Sprt::Verdict::kH1);
  EXPECT_EQ(test.verdict({{200, 300, 300, 200, 100}}), Sprt::Verdict::kH0);
  // The same question from the other side.
  const PairCounts counts{{10, 30, 50, 40, 20}};
  const Sprt mirrored{-test.elo1, -test.elo0, 0.05, 0.05};
  EXPECT_NEAR(test.llr(counts), -mirrored.llr(counts.swapped()), 1e-9);
  // Only one result so far, at the end of the scale: pairs of a law with the mean 1/2 are then won
  // half the time.
  EXPECT_NEAR(test.llr({{0, 0, 0, 0, 200}}), 200 * std::log(score_of_elo(10) / 0.5), 0.03);
  EXPECT_NEAR(test.llr({{200, 0, 0, 0, 0}}), 200 * std::log(score_of_elo(-10) / 0.5), 0.03);
}

// The test errs as seldom as it promises: of 300 matches of equal players, and of players with the
// difference of H1, about five of a hundred end wrongly.
TEST(SprtTest, ErrsAsSeldomAsItPromises) {
  const Sprt test{0, 60, 0.05, 0.05};
  const auto wrong = [&](double elo, Sprt::Verdict verdict) {
    const double score = score_of_elo(elo);
    int count = 0;
    for (std::uint64_t match = 0; match < 300; ++match) {
      Random random({7, match});
      PairCounts counts;
      while (test.verdict(counts) == Sprt::Verdict::kOpen) {
        // Two games, each drawn with a probability of 0.3.
        std::size_t points = 0;
        for (int game = 0; game < 2; ++game) {
          const double at = random.unit();
          points += at < score - 0.15 ? 2 : at < score + 0.15 ? 1 : 0;
        }
        ++counts.of[points];
      }
      if (test.verdict(counts) == verdict) ++count;
    }
    return count;
  };
  EXPECT_LE(wrong(0, Sprt::Verdict::kH1), 30);
  EXPECT_LE(wrong(60, Sprt::Verdict::kH0), 30);
}

}  // namespace
}  // namespace tandem::kxo
