// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/match.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "tandem/kxo/detail/text.hpp"
#include "tandem/kxo/notation.hpp"

namespace tandem::kxo {
namespace {

constexpr std::uint64_t kStream = 3ULL << 40;  // beside those of agents, regret and learners
constexpr int kTries = 100;                    // for an opening of one length

/// Why `settings` make no match; empty when they do. The players are not looked at.
std::string nonsense(const MatchSettings& settings) {
  const std::size_t players = settings.players.size();
  if (players < 2 || players > MatchSettings::kMostPlayers) {
    return "a match has 2 to " + std::to_string(MatchSettings::kMostPlayers) + " players, not " +
           std::to_string(players);
  }
  if (settings.pairs < 1 || settings.pairs > MatchSettings::kMostPairs) {
    return "a match has 1 to " + std::to_string(MatchSettings::kMostPairs) +
           " pairs of games of each two players";
  }
  if (settings.opening_plies < 0 || settings.opening_plies >= Rules::kMostCells) {
    return "an opening has 0 to " + std::to_string(Rules::kMostCells - 1) + " moves";
  }
  if (!settings.sprt) return {};
  const Sprt& test = *settings.sprt;
  if (players != 2) return "a sequential test is one of two players";
  // A share of points of 0 or 1 is no hypothesis.
  if (!(test.elo0 < test.elo1) || std::abs(test.elo0) > 2000 || std::abs(test.elo1) > 2000) {
    return "a sequential test needs elo0 below elo1, both within 2000";
  }
  if (!(test.alpha > 0 && test.alpha < 0.5 && test.beta > 0 && test.beta < 0.5)) {
    return "alpha and beta of a sequential test are above 0 and below 0.5";
  }
  return {};
}

/// Whether who moves, or would move next, completes a row.
bool decided(const Rules& rules, const Position& position) {
  if (rules.outcome(position) != Outcome::kOpen) return true;
  const Cells free = rules.free(position);
  return ((rules.completing(position.o) | rules.completing(position.x)) & free) != 0;
}

}  // namespace

std::vector<std::uint8_t> random_opening(const Rules& rules, int plies, std::uint64_t seed,
                                         std::uint64_t round) {
  Random random({seed, round}, kStream);
  std::vector<std::uint8_t> cells;
  for (plies = std::min(plies, rules.cells() - 1); plies > 0; --plies) {
    for (int i = 0; i < kTries; ++i) {
      Position position;
      cells.clear();
      while (position.plies() < plies && !decided(rules, position)) {
        const Cells free = rules.free(position);
        const auto count = static_cast<std::uint64_t>(std::popcount(free));
        const int cell = nth_cell(free, static_cast<int>(random.below(count)));
        cells.push_back(static_cast<std::uint8_t>(cell));
        position = position.after(cell);
      }
      if (position.plies() == plies && !decided(rules, position)) return cells;
    }
  }
  return {};
}

Match::Match(MatchSettings settings, Agents agents)
    : settings_(std::move(settings)), agents_(std::move(agents)) {
  for (std::size_t a = 0; a < settings_.players.size(); ++a) {
    for (std::size_t b = a + 1; b < settings_.players.size(); ++b) couples_.emplace_back(a, b);
  }
  counts_.resize(couples_.size());
  tallies_.resize(settings_.players.size());
}

Result<Match, std::string> Match::make(MatchSettings settings) {
  if (std::string why = nonsense(settings); !why.empty()) return Unexpected{std::move(why)};
  Agents agents;
  for (const std::string& player : settings.players) {
    if (player.find('\n') != std::string::npos) {
      return Unexpected{"player " + detail::quoted(player) + " has more than one line"};
    }
    auto agent = make_agent(player, settings.rules);
    if (!agent) return Unexpected{agent.error()};
    agents.push_back(std::move(*agent));
  }
  return Match(std::move(settings), std::move(agents));
}

Match::Pairing Match::pairing(std::uint64_t pair) const noexcept {
  const auto& [first, second] = couples_[pair % couples_.size()];
  return {first, second, pair / couples_.size()};
}

std::vector<std::uint8_t> Match::opening(std::uint64_t pair) const {
  return random_opening(settings_.rules, settings_.opening_plies, settings_.seed,
                        pairing(pair).round);
}

PairCounts Match::counts(std::size_t a, std::size_t b) const noexcept {
  for (std::size_t i = 0; i < couples_.size(); ++i) {
    if (couples_[i] == std::pair(a, b)) return counts_[i];
    if (couples_[i] == std::pair(b, a)) return counts_[i].swapped();
  }
  return {};
}

PairCounts Match::counts(std::size_t a) const noexcept {
  PairCounts sum;
  for (std::size_t b = 0; b < settings_.players.size(); ++b) sum += counts(a, b);
  return sum;
}

Sprt::Verdict Match::verdict() const noexcept {
  return settings_.sprt ? settings_.sprt->verdict(counts_[0]) : Sprt::Verdict::kOpen;
}

bool Match::over() const noexcept {
  return played_pairs() >= planned_pairs() || verdict() != Sprt::Verdict::kOpen;
}

/// The half points of O: 0, 1 or 2.
Result<int, std::string> Match::points_of_o(const GameRecord& game, std::uint64_t pair) const {
  const std::vector<std::uint8_t> begins = opening(pair);
  if (game.cells.size() < begins.size() ||
      !std::equal(begins.begin(), begins.end(), game.cells.begin())) {
    return Unexpected{std::string("does not begin with its opening")};
  }
  const Rules& rules = settings_.rules;
  Position position;
  for (const std::uint8_t cell : game.cells) {
    if (rules.outcome(position) != Outcome::kOpen)
      return Unexpected{std::string("goes on too long")};
    if (cell >= rules.cells() || (rules.free(position) & cell_bit(cell)) == 0) {
      return Unexpected{std::string("has a move to a cell that is not free")};
    }
    position = position.after(cell);
  }
  const Outcome outcome = rules.outcome(position);
  if ((outcome == Outcome::kOpen) == game.failure.empty()) {
    return Unexpected{std::string(game.failure.empty() ? "does not end"
                                                       : "has an end, and a player that failed")};
  }
  if (outcome == Outcome::kDraw) return 1;
  const bool x_wins =
      outcome == Outcome::kX || (outcome == Outcome::kOpen && position.to_move() == Player::kO);
  return x_wins ? 0 : 2;
}

Result<void, std::string> Match::append(GameRecord first, GameRecord second) {
  const std::uint64_t pair = played_pairs();
  const auto points = points_of_o(first, pair);
  if (!points) return Unexpected{"game " + std::to_string(2 * pair) + " " + points.error()};
  const auto swapped = points_of_o(second, pair);
  if (!swapped) return Unexpected{"game " + std::to_string(2 * pair + 1) + " " + swapped.error()};
  const auto [a, b, round] = pairing(pair);
  count(a, b, *points, !first.failure.empty());
  count(b, a, *swapped, !second.failure.empty());
  ++counts_[pair % couples_.size()].of.at(static_cast<std::size_t>(*points + 2 - *swapped));
  games_.push_back(std::move(first));
  games_.push_back(std::move(second));
  return {};
}

void Match::count(std::size_t o, std::size_t x, int points, bool failed) noexcept {
  if (points == 1) {
    ++tallies_[o].drawn;
    ++tallies_[x].drawn;
    return;
  }
  const std::size_t winner = points == 2 ? o : x, loser = points == 2 ? x : o;
  ++tallies_[winner].won;
  ++tallies_[loser].lost;
  if (failed) ++tallies_[loser].failed;
}

}  // namespace tandem::kxo
