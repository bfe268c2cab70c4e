// SPDX-License-Identifier: Apache-2.0
/// Matches: who is stronger?
///
/// Each two players meet in pairs of games: one random opening, played twice with sides swapped. A
/// pair is one observation (rating.hpp). Openings and the players' random numbers follow from the
/// seed and the number of the game, and pairs count in the order of their numbers: without a limit
/// of time, a match of agents that have one thread each has one result, however many threads play
/// it and wherever it was interrupted.
///
///   match = Match::make(settings) or load_match(path)
///   match.play(threads, [&] { …; return !interrupted; });
///   save_match(path, match);
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tandem/base/result.hpp"
#include "tandem/kxo/agent.hpp"
#include "tandem/kxo/rating.hpp"
#include "tandem/kxo/rules.hpp"

namespace tandem::kxo {

struct MatchSettings {
  static constexpr std::size_t kMostPlayers = 64;
  static constexpr std::uint64_t kMostPairs = 10'000'000;

  Rules rules = Rules::standard();
  std::vector<std::string> players;  ///< as make_agent() takes them
  std::uint64_t pairs = 100;         ///< of each two players
  int opening_plies = 4;             ///< random moves; fewer where no such opening is undecided
  Budget budget;                     ///< of a move
  std::uint64_t seed = 1;
  std::optional<Sprt> sprt;  ///< of two players: ends the match when it is decided
};

/// A game as it was played.
struct GameRecord {
  std::vector<std::uint8_t> cells;  ///< in turn, the opening's first
  std::string failure;              ///< why who was to move did not, and lost; else empty

  friend bool operator==(const GameRecord&, const GameRecord&) = default;
};

/// Random moves that number `round` of the games of a seed begin with: nobody has a row, or can
/// complete one with the next move, and a cell is free. Of a game where such openings are rare,
/// shorter ones.
std::vector<std::uint8_t> random_opening(const Rules& rules, int plies, std::uint64_t seed,
                                         std::uint64_t round);

/// Thread safety: one thread at a time.
class Match {
 public:
  /// Errors: a sentence about settings that make no match, or a player that make_agent() refuses.
  static Result<Match, std::string> make(MatchSettings settings);

  const MatchSettings& settings() const noexcept { return settings_; }
  /// Changes how many pairs are to be played; fewer than there were ends the match.
  void set_pairs(std::uint64_t pairs) noexcept { settings_.pairs = pairs; }

  /// Game 2 n and 2 n + 1 are pair n.
  const std::vector<GameRecord>& games() const noexcept { return games_; }
  std::uint64_t played_pairs() const noexcept { return games_.size() / 2; }
  std::uint64_t planned_pairs() const noexcept { return settings_.pairs * couples_.size(); }

  /// Who plays pair `pair`: `first` is O in its first game. And which opening they play.
  struct Pairing {
    std::size_t first = 0, second = 0;
    std::uint64_t round = 0;
  };
  Pairing pairing(std::uint64_t pair) const noexcept;
  std::vector<std::uint8_t> opening(std::uint64_t pair) const;

  /// What `a` got from its pairs with `b`.
  PairCounts counts(std::size_t a, std::size_t b) const noexcept;
  /// From all of its pairs.
  PairCounts counts(std::size_t a) const noexcept;
  struct Tally {
    std::uint64_t won = 0, drawn = 0, lost = 0;
    std::uint64_t failed = 0;  ///< of those lost: the agent gave no move
  };
  Tally tally(std::size_t player) const noexcept { return tallies_[player]; }
  /// kOpen without a test.
  Sprt::Verdict verdict() const noexcept;
  /// Whether all was played, or the test is decided.
  bool over() const noexcept;

  /// Plays on until the match is over or `go_on` says no, which is asked ten times a second and
  /// after each pair. Games that are not finished then are played anew another time; agents that
  /// think are stopped.
  ///
  /// Threads: so many play a pair each, with agents of their own; `go_on` runs on the caller's.
  /// Errors: a player cannot be made, or no thread be started.
  Result<void, std::string> play(unsigned threads, const std::function<bool()>& go_on = {});

  /// Takes a pair that was played elsewhere. Errors: a sentence about games that this pair cannot
  /// have had.
  Result<void, std::string> append(GameRecord first, GameRecord second);

 private:
  using Agents = std::vector<std::unique_ptr<Agent>>;

  Match(MatchSettings settings, Agents agents);
  Result<int, std::string> points_of_o(const GameRecord& game, std::uint64_t pair) const;
  void count(std::size_t o, std::size_t x, int points, bool failed) noexcept;

  MatchSettings settings_;
  Agents agents_;  // those of the first thread: what they learned or solved others share
  std::vector<std::pair<std::size_t, std::size_t>> couples_;  // a < b
  std::vector<PairCounts> counts_;                            // of a, by couple
  std::vector<Tally> tallies_;                                // by player
  std::vector<GameRecord> games_;
};

/// Writes settings and games, at once or not at all (a text file, described in match_file.cpp).
/// Errors: a sentence about the file.
Result<void, std::string> save_match(const std::string& path, const Match& match);
/// Errors: a sentence about a file that cannot be read, is none of these, is cut short or changed,
///         or has games that its settings do not allow.
Result<Match, std::string> load_match(const std::string& path);

}  // namespace tandem::kxo
