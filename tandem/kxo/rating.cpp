// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/rating.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tandem::kxo {
namespace {

constexpr std::array<double, 5> kScores{0, 0.25, 0.5, 0.75, 1};
constexpr double kTwoSided95 = 1.959963984540054;  // of the normal law, in standard deviations
constexpr double kUnseen = 1e-3;

using Law = std::array<double, 5>;

/// The logarithms of how much likelier the most likely law with mean `score` makes each result than
/// the observed `law` does.
///
/// With a Lagrange multiplier t for the mean, that law is law[i] / (1 + t (kScores[i] - score)),
/// where t makes the mean right. The sum below falls as t grows, from infinity at one end of the
/// interval in which all probabilities are positive to minus infinity at the other.
Law log_ratios(const Law& law, double score) noexcept {
  double low = -1 / (kScores.back() - score), high = 1 / (score - kScores.front());
  for (int i = 0; i < 100; ++i) {
    const double t = (low + high) / 2;
    double excess = 0;
    for (std::size_t j = 0; j < law.size(); ++j) {
      const double above = kScores[j] - score;
      excess += law[j] * above / (1 + t * above);
    }
    (excess > 0 ? low : high) = t;
  }
  Law logs;
  for (std::size_t j = 0; j < law.size(); ++j) {
    logs[j] = -std::log1p((low + high) / 2 * (kScores[j] - score));
  }
  return logs;
}

}  // namespace

double PairCounts::score() const noexcept {
  if (pairs() == 0) return 0.5;
  double points = 0;
  for (std::size_t i = 0; i < of.size(); ++i) points += static_cast<double>(of[i]) * kScores[i];
  return points / static_cast<double>(pairs());
}

double score_of_elo(double elo) noexcept { return 1 / (1 + std::pow(10, -elo / 400)); }

double elo_of_score(double score) noexcept {
  if (score <= 0) return -std::numeric_limits<double>::infinity();
  if (score >= 1) return std::numeric_limits<double>::infinity();
  return -400 * std::log10(1 / score - 1);
}

Elo elo_of(const PairCounts& counts) noexcept {
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  if (counts.pairs() == 0) return {0, -kInfinite, kInfinite, 0.5};
  const auto pairs = static_cast<double>(counts.pairs());
  const double score = counts.score();
  double variance = 0;
  for (std::size_t i = 0; i < kScores.size(); ++i) {
    const double above = kScores[i] - score;
    variance += static_cast<double>(counts.of[i]) / pairs * above * above;
  }
  const double deviation = std::sqrt(variance / pairs);
  Elo elo;
  elo.elo = elo_of_score(score);
  elo.low = elo_of_score(score - kTwoSided95 * deviation);
  elo.high = elo_of_score(score + kTwoSided95 * deviation);
  if (deviation > 0) {
    elo.superiority = std::erfc((0.5 - score) / deviation / std::sqrt(2.0)) / 2;
  } else if (score != 0.5) {
    elo.superiority = score > 0.5 ? 1 : 0;
  }
  return elo;
}

double Sprt::lower() const noexcept { return std::log(beta / (1 - alpha)); }
double Sprt::upper() const noexcept { return std::log((1 - beta) / alpha); }

double Sprt::llr(const PairCounts& counts) const noexcept {
  if (counts.pairs() == 0) return 0;
  Law law;
  std::transform(counts.of.begin(), counts.of.end(), law.begin(), [](std::uint64_t count) {
    return count == 0 ? kUnseen : static_cast<double>(count);
  });
  const double pairs = std::accumulate(law.begin(), law.end(), 0.0);
  for (double& share : law) share /= pairs;
  const Law h0 = log_ratios(law, score_of_elo(elo0)), h1 = log_ratios(law, score_of_elo(elo1));
  double sum = 0;
  for (std::size_t i = 0; i < law.size(); ++i) sum += law[i] * (h1[i] - h0[i]);
  return pairs * sum;
}

Sprt::Verdict Sprt::verdict(const PairCounts& counts) const noexcept {
  const double ratio = llr(counts);
  return ratio >= upper() ? Verdict::kH1 : ratio <= lower() ? Verdict::kH0 : Verdict::kOpen;
}

}  // namespace tandem::kxo
