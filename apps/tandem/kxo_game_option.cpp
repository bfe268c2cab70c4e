// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>

#include "apps/tandem/kxo.hpp"
#include "tandem/kxo/notation.hpp"

namespace tandem::cli {

void add_game_option(CLI::App& command, kxo::Rules& rules) {
  const auto parse = [&rules](const std::string& text) {
    const auto parsed = kxo::parse_game(text);
    if (!parsed) throw CLI::ValidationError("--game", parsed.error());
    rules = *parsed;
  };
  command.add_option_function<std::string>("--game", parse, "board and goal")
      ->option_text("WxH-G [" + kxo::game_name(rules) + "]");
}

}  // namespace tandem::cli
