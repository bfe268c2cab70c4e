// SPDX-License-Identifier: Apache-2.0
/// What a match says about two players: how strong one is, how sure that is, and when enough was
/// played.
///
/// Games come in pairs, of one opening with sides swapped, and a pair is one observation: both
/// results depend on the opening, so that single games would make differences look less sure, or
/// surer, than they are. Five results are possible, of 0, 1/2, 1, 3/2 and 2 points.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>

namespace tandem::kxo {

/// How many pairs gave the first player no, one, … four half points. Pairs of many opponents may be
/// added up.
struct PairCounts {
  std::array<std::uint64_t, 5> of{};

  std::uint64_t pairs() const noexcept { return std::accumulate(of.begin(), of.end(), 0ULL); }
  /// Of all games, in [0, 1]; 1/2 when there are none.
  double score() const noexcept;
  /// The other player's view.
  PairCounts swapped() const noexcept { return {{of[4], of[3], of[2], of[1], of[0]}}; }
  PairCounts& operator+=(const PairCounts& other) noexcept {
    for (std::size_t i = 0; i < of.size(); ++i) of[i] += other.of[i];
    return *this;
  }
  friend bool operator==(const PairCounts&, const PairCounts&) = default;
};

/// The share of points of a player who is `elo` stronger: 1 / (1 + 10^(-elo / 400)).
double score_of_elo(double elo) noexcept;
/// The other way round; infinite for 0 and 1.
double elo_of_score(double score) noexcept;

/// A difference in strength. What is at an end of the scale is infinite.
struct Elo {
  double elo = 0;
  double low = 0, high = 0;  ///< 95 % of intervals made like this one hold the true difference
  double superiority = 0.5;  ///< the probability, by the same normal law, that it is above 0
  double error() const noexcept { return (high - low) / 2; }
};

/// The first player's strength, above that of whom it played. Without pairs: nothing is known.
Elo elo_of(const PairCounts& counts) noexcept;

/// A sequential test: is the difference `elo0` (H0), or `elo1` (H1)? It ends as soon as the
/// logarithm of the likelihood ratio leaves [lower(), upper()].
///
/// The generalized sequential probability ratio test, of the pentanomial model: both hypotheses are
/// the most likely laws of pairs with the score that they claim. Results that have not been seen
/// count as a thousandth of a pair. The bounds are Wald's, not corrected for the last step's
/// excess. Source: A. Wald, "Sequential Tests of Statistical Hypotheses", 1945; X. Li, J. Liu, Z.
/// Ying,
///         "Generalized Sequential Probability Ratio Test for Separate Families of Hypotheses",
///         2014; M. Van den Bergh, "The Generalized Sequential Probability Ratio Test for chess
///         engine testing" (as fishtest applies it); A. Owen, "Empirical Likelihood", 1988.
struct Sprt {
  double elo0 = 0, elo1 = 10;
  double alpha = 0.05;  ///< the probability of accepting H1 where H0 is true
  double beta = 0.05;   ///< of accepting H0 where H1 is true

  enum class Verdict : std::uint8_t { kOpen, kH0, kH1 };

  double lower() const noexcept;
  double upper() const noexcept;
  /// The logarithm of the likelihood ratio of H1 to H0; 0 without pairs.
  double llr(const PairCounts& counts) const noexcept;
  Verdict verdict(const PairCounts& counts) const noexcept;

  friend bool operator==(const Sprt&, const Sprt&) = default;
};

}  // namespace tandem::kxo
