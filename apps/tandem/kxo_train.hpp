// SPDX-License-Identifier: Apache-2.0
/// What training by one process and by many have in common: options, the run, its files.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "apps/tandem/cli.hpp"
#include "tandem/base/result.hpp"
#include "tandem/kxo/training.hpp"

namespace tandem::cli {

/// What was asked for; what was not is the plan's default, or that of the training to go on with.
struct TrainSettings {
  kxo::Rules rules = kxo::Rules::standard();
  bool game_given = false;
  std::optional<std::string> method;
  std::optional<double> lambda, rate, exploration, discount;
  std::optional<std::uint64_t> halved_after, generation, evaluate_every, seed;
  std::optional<int> random_plies;
  std::uint64_t games = 0;  ///< 0: no limit
  double seconds = 0;       ///< of training, in all; 0: no limit
  double save_every = 10;   ///< seconds between checkpoints
  std::string config;       ///< a TOML file with more of this
  std::string out;          ///< the directory
  bool resume = false;
};

/// Adds the options and `--config`. `settings` has to outlive the parsing.
void add_train_options(const Command& command, TrainSettings& settings);
/// Takes from the file named by `--config` what the command line did not say.
std::optional<Failure> read_train_config(const Command& command, TrainSettings& settings);

/// Who plays the games.
struct Crew {
  kxo::Training::Players players;
  bool leads = true;  ///< judges, writes files and talks
  /// What the leader says; the others' arguments do not matter.
  std::function<bool(bool)> agree = [](bool said) { return said; };
  std::function<std::string(std::string)> share = [](std::string said) { return said; };
};

/// Trains to the end, or until a signal. Returns the exit code.
int run_train(const TrainSettings& settings, const Crew& crew);

}  // namespace tandem::cli
