// SPDX-License-Identifier: Apache-2.0
/// tandem kxo train: its options. What it does is in kxo_train_run.cpp.
#include "apps/tandem/kxo_train.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <set>

#include "apps/options/options.hpp"
#include "apps/tandem/kxo.hpp"
#include "apps/tandem/stop_signals.hpp"
#include "apps/tandem/toml_lines.hpp"
#include "tandem/kxo/whole_file.hpp"

namespace tandem::cli {
namespace {

constexpr std::string_view kExamples = R"(
Examples:
  tandem kxo train --game 4x4-4 --seconds 60
  tandem kxo train --config FILE.toml --seed 7 --out run-7
  tandem kxo train --resume --out run-7 --games 50000000

The directory gets: model, the best one so far, for td:model=DIR/model;
checkpoint, to go on from; curve.csv, curve.svg, plan.toml. Ctrl+C writes the
checkpoint. FILE.toml has a line for each option, e.g. evaluate-every = 50000;
the command line comes first. Same plan, same games, same model, however often
interrupted. docs/kxo-training.md
)";

/// Not for files.
bool is_configurable(const std::string& name) {
  return name != "config" && name != "resume" && name != "help";
}

std::string configurable_names(const Command& command) {
  std::string names;
  for (const std::string& name : command.option_names()) {
    if (is_configurable(name)) names += (names.empty() ? "" : ", ") + name;
  }
  return names;
}

/// Takes what the command line did not say. Returns: what is wrong; empty when nothing is.
std::string take_toml(const Command& command, const std::string& text) {
  const auto lines = parse_toml_lines(text);
  if (!lines) return lines.error();
  const std::vector<std::string> known = command.option_names();
  std::set<std::string> seen;
  for (const auto& [number, name, value] : *lines) {
    if (!is_configurable(name) || std::find(known.begin(), known.end(), name) == known.end()) {
      return fmt::format("line {}: no option '{}'; there are: {}", number, name,
                         configurable_names(command));
    }
    if (!seen.insert(name).second) return fmt::format("line {}: '{}' is there twice", number, name);
    if (command.given("--" + name)) continue;
    if (const std::string wrong = command.take(name, value); !wrong.empty()) {
      return fmt::format("line {}: {}", number, wrong);
    }
  }
  return {};
}

}  // namespace

void add_train_options(const Command& command, TrainSettings& settings) {
  const auto add = [&](const char* name, auto& value, const char* help, const char* text,
                       const Check& check) {
    command.option(name, value, help).text(text).check(check);
  };
  // The plan has limits of its own.
  const Check any_number = number_in(-1e9, 1e9);
  add("--config", settings.config, "options from a TOML file", "FILE", not_empty());
  add_game_option(command, settings.rules);
  add("--method", settings.method, "of learning", "td|q [td]", one_of({"td", "q"}));
  add("--games", settings.games, "stop after so many", "N", whole_number());
  add("--seconds", settings.seconds, "stop after so many [60; with --games: none]", "S",
      number_in(0, 1e9));
  add("--out", settings.out, "directory [kxo-GAME-METHOD]", "DIR", not_empty());
  command.flag("--resume", settings.resume, "go on with the checkpoint in DIR");
  add("--save-every", settings.save_every, "seconds between checkpoints", "S [10]",
      number_in(0, 1e6));
  add("--seed", settings.seed, "of all random numbers", "N [1]", whole_number());
  add("--generation", settings.generation, "games between two models", "N", whole_number());
  add("--evaluate-every", settings.evaluate_every, "games between evaluations", "N",
      whole_number());
  add("--lambda", settings.lambda, "of TD: 0 next position, 1 end of game", "X", any_number);
  add("--rate", settings.rate, "of learning, at first", "X", any_number);
  add("--halved-after", settings.halved_after, "games until the rate is half; 0: never", "N",
      whole_number());
  add("--exploration", settings.exploration, "share of random moves", "X", any_number);
  add("--random-plies", settings.random_plies, "games begin with up to so many", "N",
      whole_number(0, std::numeric_limits<int>::max()));
  add("--discount", settings.discount, "of each ply", "X", any_number);
}

std::optional<Failure> read_train_config(const Command& command, TrainSettings& settings) {
  if (const std::string& path = settings.config; !path.empty()) {
    const auto text = kxo::read_whole_file(path, 1 << 20);
    if (!text) {
      return Failure{code_of_unreadable(path),
                     "kxo train: " + text.error() + "; try: --config FILE"};
    }
    if (const std::string wrong = take_toml(command, *text); !wrong.empty()) {
      return Failure{kUsage,
                     "kxo train: " + path + ": " + wrong + "; try: tandem kxo train --help"};
    }
  }
  settings.game_given = command.given("--game") > 0;
  return std::nullopt;
}

void add_kxo_train(const Command& kxo) {
  auto settings = std::make_shared<TrainSettings>();
  const Command command = kxo.subcommand("train", "Let a model learn from games against itself");
  add_train_options(command, *settings);
  command.footer(kExamples);
  command.action([command, settings] {
    if (const auto failure = read_train_config(command, *settings)) return report(*failure);
    return run_train(*settings, {.players = kxo::players_here([] { return stop_signal() != 0; })});
  });
}

}  // namespace tandem::cli
