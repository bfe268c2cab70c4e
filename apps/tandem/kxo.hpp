// SPDX-License-Identifier: Apache-2.0
/// tandem kxo …: games of rows, without a device. Each subcommand has its file; what they share is
/// here.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "apps/tandem/cli.hpp"
#include "tandem/base/result.hpp"
#include "tandem/kxo/agent.hpp"
#include "tandem/kxo/rules.hpp"

namespace tandem::cli {

void add_kxo_export(const Command& kxo);
void add_kxo_match(const Command& kxo);
void add_kxo_play(const Command& kxo);
void add_kxo_regret(const Command& kxo);
void add_kxo_replay(const Command& kxo);
void add_kxo_solve(const Command& kxo);
void add_kxo_watch(const Command& kxo);
void add_kxo_train(const Command& kxo);

/// Adds `--game WxH-G`. `rules` has to outlive the parsing; what it is now is the default.
void add_game_option(const Command& command, kxo::Rules& rules);
/// Adds `--time TIME` and `--work N`, which is what one move may cost. Without either `budget`
/// stays what it is, which `otherwise` tells; each of them alone is the only limit.
void add_budget_options(const Command& command, kxo::Budget& budget, const std::string& otherwise);
/// "at most 1 ms and 5000 nodes or iterations a move".
std::string budget_text(const kxo::Budget& budget);

/// The agent, or what is wrong with `text`; `what` is the command.
Result<std::unique_ptr<kxo::Agent>, Failure> make_agent(std::string_view what,
                                                        const std::string& text,
                                                        const kxo::Rules& rules);

}  // namespace tandem::cli
