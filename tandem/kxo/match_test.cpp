// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/match.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>

#include "tandem/kxo/detail/test_agents.hpp"

namespace tandem::kxo {
namespace {

using namespace std::chrono_literals;

MatchSettings settings_of(std::vector<std::string> players, std::uint64_t pairs,
                          const Rules& rules = *Rules::make(5, 5, 4)) {
  MatchSettings settings;
  settings.rules = rules;
  settings.players = std::move(players);
  settings.pairs = pairs;
  settings.budget.work = 50;
  return settings;
}

Match played(const MatchSettings& settings, unsigned threads = 1) {
  Match match = *Match::make(settings);
  EXPECT_TRUE(match.play(threads));
  return match;
}

TEST(MatchTest, OpeningsLeaveTheGameUndecided) {
  for (const auto& [rules, plies] :
       {std::pair(Rules::standard(), 4), {*Rules::make(4, 4, 4), 6}, {*Rules::make(7, 7, 5), 8}}) {
    std::set<std::vector<std::uint8_t>> different;
    for (std::uint64_t round = 0; round < 200; ++round) {
      const auto cells = random_opening(rules, plies, 1, round);
      ASSERT_LE(cells.size(), static_cast<std::size_t>(plies));
      Position position;
      for (const std::uint8_t cell : cells) {
        ASSERT_NE(rules.free(position) & cell_bit(cell), 0U);
        position = position.after(cell);
      }
      EXPECT_EQ(rules.outcome(position), Outcome::kOpen);
      for (const Player player : {Player::kO, Player::kX}) {
        EXPECT_EQ(rules.completing(position.of(player)) & rules.free(position), 0U);
      }
      different.insert(cells);
      EXPECT_EQ(cells, random_opening(rules, plies, 1, round));
    }
    EXPECT_GT(different.size(), 20U);
  }
}

// In a game that any first move wins there is only the empty board.
TEST(MatchTest, OpeningsAreShorterWhereTheyHaveToBe) {
  EXPECT_TRUE(random_opening(*Rules::make(3, 3, 1), 4, 1, 0).empty());
  EXPECT_TRUE(random_opening(*Rules::make(1, 1, 1), 4, 1, 0).empty());
  EXPECT_TRUE(random_opening(Rules::standard(), 0, 1, 0).empty());
  EXPECT_LT(random_opening(*Rules::make(2, 2, 2), 3, 1, 0).size(), 2U);
}

TEST(MatchTest, APairIsOneOpeningWithSidesSwapped) {
  const Match match = played(settings_of({"mcts", "negamax", "random"}, 4));
  ASSERT_EQ(match.played_pairs(), 12U);
  EXPECT_TRUE(match.over());
  std::set<std::vector<std::uint8_t>> different;
  for (std::uint64_t pair = 0; pair < 12; ++pair) {
    const auto opening = match.opening(pair);
    for (const GameRecord& game : {match.games()[2 * pair], match.games()[2 * pair + 1]}) {
      ASSERT_GE(game.cells.size(), opening.size());
      EXPECT_TRUE(std::equal(opening.begin(), opening.end(), game.cells.begin()));
    }
    // The three couples of a round play the same one.
    EXPECT_EQ(opening, match.opening(pair - pair % 3));
    different.insert(opening);
    const auto [first, second, round] = match.pairing(pair);
    EXPECT_LT(first, second);
    EXPECT_EQ(round, pair / 3);
  }
  EXPECT_EQ(different.size(), 4U);
}

TEST(MatchTest, CountsWhoWon) {
  const Match match =
      played(settings_of({"random", "mcts:iterations=400", "perfect"}, 15, *Rules::make(4, 4, 3)));
  std::uint64_t games = 0;
  for (std::size_t player = 0; player < 3; ++player) {
    const Match::Tally tally = match.tally(player);
    EXPECT_EQ(tally.won + tally.drawn + tally.lost, 60U);
    EXPECT_EQ(tally.failed, 0U);
    games += tally.won + tally.lost + tally.drawn;
    const double points = static_cast<double>(tally.won) + static_cast<double>(tally.drawn) / 2;
    EXPECT_DOUBLE_EQ(match.counts(player).score(), points / 60);
  }
  EXPECT_EQ(games, 2 * match.games().size());
  EXPECT_EQ(match.counts(0, 1), match.counts(1, 0).swapped());
  EXPECT_GT(match.counts(2, 0).score(), 0.8);
  EXPECT_GT(match.counts(1, 0).score(), 0.8);
}

// Every opening of this game is won for the same player: each pair is shared, and nothing is
// learned about the players, who are the same.
TEST(MatchTest, PerfectPlayersShareEachPair) {
  const Match match = played(settings_of({"perfect", "perfect"}, 20, Rules::standard()));
  EXPECT_EQ(match.counts(0, 1), (PairCounts{{0, 0, 20, 0, 0}}));
}

TEST(MatchTest, HasOneResultWithAnyNumberOfThreads) {
  const MatchSettings settings = settings_of({"mcts", "negamax:depth=2", "random"}, 5);
  const Match one = played(settings);
  EXPECT_EQ(played(settings, 3).games(), one.games());
  EXPECT_EQ(played(settings, 40).games(), one.games());  // more than there are pairs
  MatchSettings other = settings;
  other.seed = 2;
  EXPECT_NE(played(other).games(), one.games());
}

TEST(MatchTest, GoesOnWhereItWasInterrupted) {
  const MatchSettings settings = settings_of({"mcts", "negamax:depth=2"}, 12);
  const Match whole = played(settings);
  Match match = *Match::make(settings);
  for (std::uint64_t stops = 1; !match.over(); ++stops) {
    ASSERT_TRUE(match.play(2, [&] { return match.played_pairs() < stops; }));
    EXPECT_EQ(match.played_pairs(), std::min<std::uint64_t>(stops, 12));
  }
  EXPECT_EQ(match.games(), whole.games());
  // A longer one begins with the same games.
  match.set_pairs(14);
  EXPECT_FALSE(match.over());
  ASSERT_TRUE(match.play(1));
  ASSERT_EQ(match.games().size(), 28U);
  EXPECT_TRUE(std::equal(whole.games().begin(), whole.games().end(), match.games().begin()));
}

TEST(MatchTest, DoesNotWaitForAMoveThatNobodyWants) {
  MatchSettings settings = settings_of({"mcts:time=3600s", "random"}, 1, *Rules::make(8, 8, 6));
  settings.budget = {};
  Match match = *Match::make(settings);
  int asked = 0;
  EXPECT_TRUE(match.play(2, [&] { return ++asked < 3; }));
  EXPECT_EQ(match.played_pairs(), 0U);
}

TEST(MatchTest, ATestEndsItAtOnePairWithAnyNumberOfThreads) {
  MatchSettings settings = settings_of({"mcts:iterations=100", "random"}, 500);
  settings.sprt = Sprt{0, 100, 0.05, 0.05};
  const Match match = played(settings);
  EXPECT_EQ(match.verdict(), Sprt::Verdict::kH1);
  EXPECT_LT(match.played_pairs(), 100U);
  EXPECT_EQ(played(settings, 4).games(), match.games());
  std::swap(settings.players[0], settings.players[1]);
  EXPECT_EQ(played(settings).verdict(), Sprt::Verdict::kH0);
}

TEST(MatchTest, WhoGivesNoMoveLoses) {
  const Match match =
      played(settings_of({"random", "external:command=exit 0"}, 2, *Rules::make(3, 3, 3)));
  EXPECT_EQ(match.tally(0).won, 4U);
  EXPECT_EQ(match.tally(1).failed, 4U);
  EXPECT_EQ(match.counts(0, 1), (PairCounts{{0, 0, 0, 0, 2}}));
  for (const GameRecord& game : match.games()) EXPECT_EQ(game.failure, "Broken pipe");
}

TEST(MatchTest, PairsFromElsewhereHaveToBePossible) {
  const MatchSettings settings = settings_of({"random", "random"}, 2, *Rules::make(3, 3, 3));
  const Match match = played(settings);
  const GameRecord good = match.games()[0], next = match.games()[1];
  const auto error = [&](const GameRecord& first) {
    return Match::make(settings)->append(first, next).error();
  };
  EXPECT_TRUE(Match::make(settings)->append(good, next));
  GameRecord bad = good;
  bad.cells[0] = static_cast<std::uint8_t>((bad.cells[0] + 1) % 9);
  EXPECT_EQ(error(bad), "game 0 does not begin with its opening");
  bad = good;
  bad.cells.pop_back();
  EXPECT_EQ(error(bad), "game 0 does not end");
  bad.cells.push_back(bad.cells[0]);
  EXPECT_EQ(error(bad), "game 0 has a move to a cell that is not free");
  bad = good;
  bad.cells.push_back(9);
  EXPECT_NE(error(bad), "");
  bad = good;
  bad.failure = "Broken pipe";
  EXPECT_EQ(error(bad), "game 0 has an end, and a player that failed");
}

TEST(MatchTest, RefusesWhatIsNoMatch) {
  const auto error = [](const MatchSettings& settings) { return Match::make(settings).error(); };
  EXPECT_EQ(error(settings_of({"random"}, 1)), "a match has 2 to 64 players, not 1");
  EXPECT_NE(error(settings_of({"random", "random"}, 0)).find("1 to 10000000 pairs"),
            std::string::npos);
  EXPECT_EQ(error(settings_of({"random", "rnadom"}, 1)).substr(0, 17), "no agent 'rnadom'");
  EXPECT_EQ(error(settings_of({"random", "random\n"}, 1)),
            "player 'random\n' has more than one line");
  MatchSettings settings = settings_of({"random", "random"}, 1);
  settings.opening_plies = 64;
  EXPECT_EQ(error(settings), "an opening has 0 to 63 moves");
  settings.opening_plies = 4;
  for (const Sprt& test : {Sprt{10, 0}, Sprt{0, 0}, Sprt{0, 1e9}, Sprt{0, 10, 0, 0.05},
                           Sprt{0, 10, 0.05, 0.5}, Sprt{NAN, 10}}) {
    settings.sprt = test;
    EXPECT_NE(error(settings).find("sequential test"), std::string::npos) << test.elo1;
  }
  settings.sprt = Sprt{};
  settings.players.push_back("random");
  EXPECT_EQ(error(settings), "a sequential test is one of two players");
}

}  // namespace
}  // namespace tandem::kxo
