// SPDX-License-Identifier: Apache-2.0
/// tandem kxo train: its options. What it does is in kxo_train_run.cpp.
#include "apps/tandem/kxo_train.hpp"

#include <CLI/CLI.hpp>
#include <memory>
#include <set>
#include <sstream>

#include "apps/tandem/kxo.hpp"
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

std::string configurable_names(const CLI::App& command) {
  std::string names;
  for (const CLI::Option* option : command.get_options()) {
    const std::string& name = option->get_single_name();
    if (is_configurable(name)) names += (names.empty() ? "" : ", ") + name;
  }
  return names;
}

}  // namespace

void add_train_options(CLI::App& command, TrainSettings& settings) {
  command.add_option("--config", "options from a TOML file")->option_text("FILE");
  add_game_option(command, settings.rules);
  command.add_option("--method", settings.method, "of learning")
      ->option_text("td|q [td]")
      ->check(CLI::IsMember({"td", "q"}));
  command.add_option("--games", settings.games, "stop after so many")->option_text("N");
  command.add_option("--seconds", settings.seconds, "stop after so many [60]")
      ->option_text("S")
      ->check(CLI::Range(0.0, 1e9));
  command.add_option("--out", settings.out, "directory [kxo-GAME-METHOD]")->option_text("DIR");
  command.add_flag("--resume", settings.resume, "go on with the checkpoint in DIR");
  command.add_option("--save-every", settings.save_every, "seconds between checkpoints")
      ->option_text("S [10]")
      ->check(CLI::Range(0.0, 1e6));
  command.add_option("--seed", settings.seed, "of all random numbers")->option_text("N [1]");
  command.add_option("--generation", settings.generation, "games between two models")
      ->option_text("N");
  command.add_option("--evaluate-every", settings.evaluate_every, "games between evaluations")
      ->option_text("N");
  command.add_option("--lambda", settings.lambda, "of TD: 0 next position, 1 end of game")
      ->option_text("X");
  command.add_option("--rate", settings.rate, "of learning, at first")->option_text("X");
  command
      .add_option("--halved-after", settings.halved_after, "games until the rate is half; 0: never")
      ->option_text("N");
  command.add_option("--exploration", settings.exploration, "share of random moves")
      ->option_text("X");
  command.add_option("--random-plies", settings.random_plies, "games begin with up to so many")
      ->option_text("N");
  command.add_option("--discount", settings.discount, "of each ply")->option_text("X");
}

std::optional<Failure> read_train_config(CLI::App& command, TrainSettings& settings) {
  const auto given = [&](const char* name) { return command.get_option(name)->count() > 0; };
  if (given("--config")) {
    const auto path = command.get_option("--config")->as<std::string>();
    const auto fail = [&](const std::string& why) {
      return Failure{kUsage, "kxo train: " + path + ": " + why + "; try: tandem kxo train --help"};
    };
    const auto text = kxo::read_whole_file(path, 1 << 20);
    if (!text) return Failure{kNotFound, "kxo train: " + text.error() + "; try: --config FILE"};
    std::istringstream stream(*text);
    std::set<std::string> seen;
    for (const CLI::ConfigItem& item : CLI::ConfigTOML().from_config(stream)) {
      if (item.name == "++" || item.name == "--") continue;  // where a section begins and ends
      CLI::Option* option = nullptr;
      if (item.parents.empty() && is_configurable(item.name)) {
        option = command.get_option_no_throw("--" + item.name);
      }
      if (option == nullptr) {
        return fail(fmt::format("no option '{}'; there are: {}", item.fullname(),
                                configurable_names(command)));
      }
      if (!seen.insert(item.name).second) return fail("'" + item.name + "' is there twice");
      if (option->count() > 0) continue;
      try {
        option->add_result(item.inputs);
        option->run_callback();
      } catch (const CLI::ParseError& error) {
        return fail(error.what());
      }
    }
  }
  settings.game_given = given("--game");
  return std::nullopt;
}

void add_kxo_train(CLI::App& kxo, Registry& registry) {
  auto settings = std::make_shared<TrainSettings>();
  CLI::App* command = kxo.add_subcommand("train", "Let a model learn from games against itself");
  add_train_options(*command, *settings);
  command->footer(std::string(kExamples));
  registry.emplace_back(command, [command, settings] {
    if (const auto failure = read_train_config(*command, *settings)) return report(*failure);
    return run_train(*settings, {.players = kxo::players_here(train_interrupted)});
  });
}

}  // namespace tandem::cli
