// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/kxo_match_report.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "apps/tandem/kxo.hpp"
#include "tandem/kxo/notation.hpp"

namespace tandem::cli {
namespace {

using Verdict = kxo::Sprt::Verdict;

/// The players' numbers, the best first.
std::vector<std::size_t> ranking(const kxo::Match& match) {
  std::vector<std::size_t> order(match.settings().players.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return match.counts(a).score() > match.counts(b).score();
  });
  return order;
}

/// "13.5": the points of all games.
std::string points(const kxo::PairCounts& counts) {
  return fmt::format("{:.1f}", counts.score() * 2 * static_cast<double>(counts.pairs()));
}

/// "+12.3": never "-0.0". Who won everything, or nothing, is "> +34" or "< -34", as far as so many
/// pairs tell with 95 %: a pair is won whole with no more than the probability `score` that is
/// expected of it, and n pairs with score^n. Too few tell nothing: "-".
std::string elo_text(const kxo::PairCounts& counts) {
  const double score = counts.score();
  if (score > 0 && score < 1) {
    return fmt::format("{:+.1f}", std::round(10 * kxo::elo_of_score(score)) / 10 + 0.0);
  }
  const double least =
      std::floor(kxo::elo_of_score(std::pow(0.05, 1 / static_cast<double>(counts.pairs()))));
  if (least <= 0) return "-";
  return fmt::format("{}{:.0f}", score == 1 ? "> +" : "< -", least);
}

/// "4.5"; "-" where all pairs ended alike, which tells nothing about how they vary, or where it
/// reaches the end of the scale.
std::string error_text(const kxo::Elo& elo) {
  const double error = elo.error();
  return std::isfinite(error) && error > 0 ? fmt::format("{:.1f}", error) : "-";
}

/// What two players' pairs say about them.
void print_comparison(const kxo::Match& match) {
  const auto& players = match.settings().players;
  const kxo::PairCounts counts = match.counts(0, 1);
  const kxo::Elo elo = elo_of(counts);
  const std::string error = error_text(elo);
  fmt::print("\n{} against {}: ", players[0], players[1]);
  if (counts.pairs() == 0) {
    fmt::print("no pair was played\n");
  } else if (counts.of[2] == counts.pairs()) {
    fmt::print("every pair 1:1, the openings decide; try: {}\n",
               match.settings().rules.cells() < 49 ? "--game 7x7-5" : "more --pairs");
  } else if (counts.score() == 0 || counts.score() == 1) {
    fmt::print("{} every game; Elo {}{}\n", counts.score() == 1 ? "won" : "lost", elo_text(counts),
               elo_text(counts) == "-" ? ": too few pairs" : " (95 %)");
  } else if (error == "-") {
    fmt::print("Elo {}, error not known: too few pairs\n", elo_text(counts));
  } else {
    fmt::print("Elo {} +- {} (95 %), stronger with {:.1f} %\n", elo_text(counts), error,
               100 * elo.superiority);
  }
  fmt::print("pairs of 0, 1/2, 1, 3/2 and 2 points: {}\n", fmt::join(counts.of, " "));
}

void print_crosstable(const kxo::Match& match) {
  const std::vector<std::size_t> order = ranking(match);
  std::vector<std::string> header{"   player", "Elo", "+-",    "games",
                                  "score",     "won", "drawn", "lost"};
  for (std::size_t i = 0; i < order.size(); ++i) header.push_back(fmt::format("{}", i + 1));
  Table table(std::move(header));
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::size_t player = order[i];
    const kxo::PairCounts counts = match.counts(player);
    const kxo::Match::Tally tally = match.tally(player);
    std::vector<std::string> row{fmt::format("{:<3}{}", i + 1, match.settings().players[player]),
                                 elo_text(counts),
                                 error_text(elo_of(counts)),
                                 fmt::format("{}", 2 * counts.pairs()),
                                 fmt::format("{:.1f} %", 100 * counts.score()),
                                 fmt::format("{}", tally.won),
                                 fmt::format("{}", tally.drawn),
                                 fmt::format("{}", tally.lost)};
    for (const std::size_t other : order) {
      row.push_back(other == player ? "" : points(match.counts(player, other)));
    }
    table.add(std::move(row));
  }
  table.print();
}

const char* name_of(Verdict verdict) {
  return verdict == Verdict::kH1 ? "H1" : verdict == Verdict::kH0 ? "H0" : "open";
}

void print_sprt(const kxo::Match& match, const kxo::Sprt& test) {
  const Verdict verdict = match.verdict();
  fmt::print(
      "SPRT of {:+g} (H0) and {:+g} Elo (H1), alpha {:g}, beta {:g}: LLR {:.2f} of ({:.2f}, "
      "{:.2f}): {}\n",
      test.elo0, test.elo1, test.alpha, test.beta, test.llr(match.counts(0, 1)), test.lower(),
      test.upper(),
      verdict == Verdict::kOpen ? "undecided" : fmt::format("{} accepted", name_of(verdict)));
}

nlohmann::ordered_json to_json(const kxo::PairCounts& counts) {
  const kxo::Elo elo = elo_of(counts);
  return {{"pairs", counts.of}, {"score", counts.score()}, {"elo", elo.elo},
          {"elo_low", elo.low}, {"elo_high", elo.high},    {"superiority", elo.superiority}};
}

}  // namespace

void print_match(const kxo::Match& match) {
  const kxo::MatchSettings& settings = match.settings();
  fmt::print("{}, {} of {} pairs of games, openings of {} moves, seed {}\n{}\n\n",
             kxo::game_name(settings.rules), match.played_pairs(), match.planned_pairs(),
             settings.opening_plies, settings.seed, budget_text(settings.budget));
  print_crosstable(match);
  if (settings.players.size() == 2) print_comparison(match);
  if (settings.sprt) print_sprt(match, *settings.sprt);
}

void print_match_json(const kxo::Match& match) {
  const kxo::MatchSettings& settings = match.settings();
  nlohmann::ordered_json json;
  json["schema"] = 1;
  json["game"] = kxo::game_name(settings.rules);
  json["played_pairs"] = match.played_pairs();
  json["planned_pairs"] = match.planned_pairs();
  json["opening_plies"] = settings.opening_plies;
  json["seed"] = settings.seed;
  json["time_ns"] = settings.budget.time.count();
  json["work"] = settings.budget.work;
  json["players"] = nlohmann::ordered_json::array();
  json["couples"] = nlohmann::ordered_json::array();
  for (std::size_t a = 0; a < settings.players.size(); ++a) {
    const kxo::Match::Tally tally = match.tally(a);
    nlohmann::ordered_json player{{"player", settings.players[a]}};
    player.update({{"won", tally.won},
                   {"drawn", tally.drawn},
                   {"lost", tally.lost},
                   {"failed", tally.failed}});
    player.update(to_json(match.counts(a)));
    json["players"].push_back(std::move(player));
    for (std::size_t b = a + 1; b < settings.players.size(); ++b) {
      nlohmann::ordered_json couple{{"first", a}, {"second", b}};
      couple.update(to_json(match.counts(a, b)));
      json["couples"].push_back(std::move(couple));
    }
  }
  if (const auto& test = settings.sprt) {
    json["sprt"] = {{"elo0", test->elo0},
                    {"elo1", test->elo1},
                    {"alpha", test->alpha},
                    {"beta", test->beta},
                    {"lower", test->lower()},
                    {"upper", test->upper()},
                    {"llr", test->llr(match.counts(0, 1))},
                    {"verdict", name_of(match.verdict())}};
  }
  // Names of agents are bytes that somebody typed.
  fmt::print("{}\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace tandem::cli
