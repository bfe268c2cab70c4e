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

void add_kxo_export(CLI::App& kxo, Registry& registry);
void add_kxo_match(CLI::App& kxo, Registry& registry);
void add_kxo_play(CLI::App& kxo, Registry& registry);
void add_kxo_regret(CLI::App& kxo, Registry& registry);
void add_kxo_replay(CLI::App& kxo, Registry& registry);
void add_kxo_solve(CLI::App& kxo, Registry& registry);
void add_kxo_watch(CLI::App& kxo, Registry& registry);
void add_kxo_train(CLI::App& kxo, Registry& registry);

/// Adds `--game WxH-G`. `rules` has to outlive the parsing; what it is now is the default.
void add_game_option(CLI::App& command, kxo::Rules& rules);
/// Adds `--time TIME` and `--work N`, which is what one move may cost. Without either `budget`
/// stays what it is, which `otherwise` tells; each of them alone is the only limit.
void add_budget_options(CLI::App& command, kxo::Budget& budget, const std::string& otherwise);
/// "at most 1 ms and 5000 nodes or iterations a move".
std::string budget_text(const kxo::Budget& budget);

/// The agent, or what is wrong with `text`; `what` is the command.
Result<std::unique_ptr<kxo::Agent>, Failure> make_agent(std::string_view what,
                                                        const std::string& text,
                                                        const kxo::Rules& rules);

}  // namespace tandem::cli
