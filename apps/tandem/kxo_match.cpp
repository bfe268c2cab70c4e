// SPDX-License-Identifier: Apache-2.0
/// tandem kxo match: agents against each other.
#include <unistd.h>

#include <charconv>
#include <optional>

#include "apps/options/options.hpp"
#include "apps/tandem/kxo.hpp"
#include "apps/tandem/kxo_match_report.hpp"
#include "apps/tandem/progress.hpp"
#include "apps/tandem/stop_signals.hpp"
#include "tandem/kxo/match.hpp"
#include "tandem/kxo/notation.hpp"

namespace tandem::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view kExamples = R"(
Examples:
  tandem kxo match mcts negamax --game 7x7-5 --pairs 200
  tandem kxo match mcts:exploration=1 mcts --game 7x7-5 --sprt 0,20 --work 2000
  tandem kxo match mcts negamax td random --threads 2 --save match.txt
  tandem kxo match --save match.txt --resume

A pair is one random opening, played twice with sides swapped. Elo and the test
(GSPRT) count pairs; +- is 95 %; against the field where more than two play.
With --work instead of --time a match of agents with one thread each has one
result, whatever --threads, however often interrupted. --sprt ends it when that
is decided.
--save keeps settings and games, every five seconds and at the end: for
--resume, not for tandem kxo replay. Threads that play share the cores with
those that agents have.
)";

constexpr std::uint64_t kPairsWithTest = 10'000;

struct Settings {
  kxo::MatchSettings match;
  std::string sprt;
  unsigned threads = 1;
  std::string file;
  bool resume = false, as_json = false;
};

std::string time_left(double seconds) {
  const auto whole = static_cast<std::uint64_t>(std::min(seconds, 1e9));
  if (whole >= 3600) return fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

/// Shows how far a match is, and saves it from time to time.
class Watch {
 public:
  Watch(const kxo::Match& match, std::string file)
      : match_(match), file_(std::move(file)), before_(match.played_pairs()), saved_(before_) {}

  /// False when the match has to stop.
  bool go_on() {
    const auto now = Clock::now();
    if (now - drawn_at_ >= std::chrono::milliseconds(100)) draw(now);
    if (now - saved_at_ >= std::chrono::seconds(5)) save();
    return stop_signal() == 0 && failed_.empty();
  }
  /// What went wrong; empty when all was written.
  std::string finish() {
    progress_.clear();
    save();
    return failed_;
  }

 private:
  void draw(Clock::time_point now) {
    drawn_at_ = now;
    const std::uint64_t played = match_.played_pairs(), planned = match_.planned_pairs();
    const double seconds = std::chrono::duration<double>(now - started_).count();
    const double rate = static_cast<double>(played - before_) / seconds;
    std::string text = fmt::format("{}/{} pairs {:.1f}/s", played, planned, rate);
    if (const auto& test = match_.settings().sprt) {
      text += fmt::format(" LLR {:.2f}", test->llr(match_.counts(0, 1)));
    } else if (rate > 0) {
      text += fmt::format(" {} left", time_left(static_cast<double>(planned - played) / rate));
    }
    progress_.draw(static_cast<double>(played) / static_cast<double>(planned), text);
    if (now - said_at_ >= std::chrono::seconds(30) && !styled(STDERR_FILENO)) {
      said_at_ = now;
      narrate("  {}\n", text);
    }
  }
  void save() {
    saved_at_ = Clock::now();
    const bool news = match_.played_pairs() != saved_ || first_;
    if (file_.empty() || !news || !failed_.empty()) return;
    first_ = false;
    saved_ = match_.played_pairs();
    if (const auto written = kxo::save_match(file_, match_); !written) failed_ = written.error();
  }

  const kxo::Match& match_;
  const std::string file_;
  const Clock::time_point started_ = Clock::now();
  const std::uint64_t before_;
  std::uint64_t saved_;
  bool first_ = true;
  Clock::time_point drawn_at_ = started_, said_at_ = started_, saved_at_{};
  std::string failed_;
  Progress progress_;
};

/// "ELO0,ELO1" or "ELO0,ELO1,ALPHA,BETA".
std::optional<kxo::Sprt> parse_test(std::string_view text) {
  std::vector<double> numbers;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (;; ++at) {
    const auto [after, error] = std::from_chars(at, end, numbers.emplace_back());
    if (error != std::errc()) return std::nullopt;
    at = after;
    if (at == end) break;
    if (*at != ',') return std::nullopt;
  }
  if (numbers.size() != 2 && numbers.size() != 4) return std::nullopt;
  kxo::Sprt test{numbers[0], numbers[1]};
  if (numbers.size() == 4) {
    test.alpha = numbers[2];
    test.beta = numbers[3];
  }
  return test;
}

/// The match in the file. What is given again has to be what the file says; the number of pairs may
/// change.
Result<kxo::Match, Failure> resumed(const Settings& settings, const Command& command) {
  auto match = kxo::load_match(settings.file);
  if (!match) {
    return Unexpected{Failure{
        code_of_unreadable(settings.file),
        fmt::format("kxo match: {}; try: without --resume, another --save", match.error())}};
  }
  const kxo::MatchSettings &mine = settings.match, &theirs = match->settings();
  const auto given = [&](const char* option) { return command.given(option); };
  const char* other = nullptr;
  if (given("PLAYER") && mine.players != theirs.players) other = "players";
  if (given("--game") && !(mine.rules == theirs.rules)) other = "game";
  if (given("--seed") && mine.seed != theirs.seed) other = "seed";
  if (given("--opening") && mine.opening_plies != theirs.opening_plies) other = "openings";
  if ((given("--time") || given("--work")) && !(mine.budget == theirs.budget)) other = "limits";
  if (given("--sprt") && mine.sprt != theirs.sprt) other = "test";
  if (other != nullptr) {
    return Unexpected{Failure{kUsage, fmt::format("kxo match: {} has another {}; try: tandem kxo "
                                                  "match --resume --save {}",
                                                  settings.file, other, settings.file)}};
  }
  if (given("--pairs")) match->set_pairs(mine.pairs);
  return std::move(*match);
}

Result<kxo::Match, Failure> prepared(Settings& settings, const Command& command) {
  const auto refused = [](const std::string& why, const char* hint) {
    return Unexpected{Failure{kUsage, fmt::format("kxo match: {}; try: {}", why, hint)}};
  };
  if (settings.resume && settings.file.empty()) {
    return refused("--resume needs a file", "--resume --save FILE");
  }
  if (!settings.sprt.empty()) {
    settings.match.sprt = parse_test(settings.sprt);
    if (!settings.match.sprt) {
      return refused(fmt::format("--sprt: '{}' is not two or four numbers", settings.sprt),
                     "--sprt 0,20 or --sprt 0,20,0.05,0.05");
    }
    if (!command.given("--pairs")) settings.match.pairs = kPairsWithTest;
  }
  if (settings.resume) return resumed(settings, command);
  if (!settings.file.empty() && ::access(settings.file.c_str(), F_OK) == 0) {
    return Unexpected{Failure{kFailure, fmt::format("kxo match: {}: exists already; try: --resume "
                                                    "to go on with it",
                                                    settings.file)}};
  }
  auto match = kxo::Match::make(settings.match);
  if (!match) return refused(match.error(), "tandem kxo agents, tandem kxo match --help");
  return std::move(*match);
}

int run(Settings& settings, const Command& command) {
  auto match = prepared(settings, command);
  if (!match) return report(match.error());
  note_stop_signals();  // the games so far are saved and counted
  Watch watch(*match, settings.file);
  const auto played = match->play(settings.threads, [&] { return watch.go_on(); });
  const std::string failed = watch.finish();
  if (!played) return report({kFailure, fmt::format("kxo match: {}", played.error())});
  // A file that cannot be written stops the match at once; no result was asked for then.
  if (failed.empty() || match->played_pairs() != 0) {
    settings.as_json ? print_match_json(*match) : print_match(*match);
  }
  bool all_moved = true;
  for (std::size_t i = 0; i < match->settings().players.size(); ++i) {
    const auto lost = match->tally(i).failed, games = 2 * match->counts(i).pairs();
    if (lost == 0) continue;
    if (lost == games) all_moved = false;
    warn(fmt::format("kxo match: {} gave no move in {} of its {} games, which it lost{}",
                     match->settings().players[i], lost, games,
                     lost < games ? ""
                                  : fmt::format("; try: tandem kxo play --against '{}'",
                                                match->settings().players[i])));
  }
  if (!failed.empty()) {
    return report({kFailure, fmt::format("kxo match: {}; try: another --save", failed)});
  }
  if (match->over()) return all_moved ? kOk : kFailure;
  const std::string hint = settings.file.empty()
                               ? "--save FILE, to be able to go on"
                               : "tandem kxo match --resume --save " + settings.file;
  return report({kFailure, fmt::format("kxo match: interrupted after {} of {} pairs; try: {}",
                                       match->played_pairs(), match->planned_pairs(), hint)});
}

}  // namespace

void add_kxo_match(const Command& kxo) {
  auto settings = std::make_shared<Settings>();
  kxo::MatchSettings& match = settings->match;
  match.budget.time = std::chrono::milliseconds(1);
  const Command command = kxo.subcommand("match", "Let agents play each other");
  command.option("PLAYER", match.players, "agents: NAME or NAME:OPTION=VALUE,…");
  add_game_option(command, match.rules);
  command.option("--pairs", match.pairs, "pairs of games of each two")
      .text("N [100; --sprt: 10000]")
      .check(whole_number(1, kxo::MatchSettings::kMostPairs));
  command.option("--opening", match.opening_plies, "random moves")
      .text("N [4]")
      .check(whole_number(0, kxo::Rules::kMostCells - 1));
  add_budget_options(command, match.budget, "1ms");
  command.option("--sprt", settings->sprt, "test of two differences in Elo")
      .text("ELO0,ELO1[,ALPHA,BETA]");
  command.option("--threads", settings->threads, "games at the same time")
      .text("N [1]")
      .check(whole_number(1, 256));
  command.option("--seed", match.seed, "of openings and agents")
      .text("S [1]")
      .check(whole_number());
  command.option("--save", settings->file, "keep the games").text("FILE").check(not_empty());
  command.flag("--resume", settings->resume, "go on with what FILE has");
  command.flag("--json", settings->as_json, "as JSON");
  command.footer(kExamples);
  command.action([settings, command] { return run(*settings, command); });
}

}  // namespace tandem::cli
