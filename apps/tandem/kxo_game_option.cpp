// SPDX-License-Identifier: Apache-2.0

#include "apps/options/options.hpp"
#include "apps/tandem/kxo.hpp"
#include "tandem/kxo/notation.hpp"

namespace tandem::cli {

void add_game_option(const Command& command, kxo::Rules& rules) {
  const auto parse = [&rules](const std::string& text) {
    const auto parsed = kxo::parse_game(text);
    if (!parsed) return parsed.error();
    rules = *parsed;
    return std::string();
  };
  command.option_read_by(parse, "--game", "board and goal")
      .text("WxH-G [" + kxo::game_name(rules) + "]");
}

}  // namespace tandem::cli
