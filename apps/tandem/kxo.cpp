// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/kxo.hpp"

#include <CLI/CLI.hpp>

#include "apps/tandem/option_checks.hpp"
#include "tandem/kxo/notation.hpp"

namespace tandem::cli {
namespace {

constexpr std::string_view kExamples = R"(
Examples:
  tandem kxo play                     against an agent; tandem kxo watch: agents
  tandem kxo agents                   who can play, and their options
  tandem kxo solve --game 4x4-4       perfect play of a whole game
  tandem kxo regret mcts negamax      how close to perfect agents play
  tandem kxo match mcts negamax --game 7x7-5   who is stronger

A game is WIDTHxHEIGHT-GOAL, up to 64 cells: 4x4-3 is three in a row on a board
of 4 by 4. A cell is column and row, from the top left: b2. An agent is a name,
or NAME:OPTION=VALUE,…: mcts:iterations=10000,threads=2. docs/kxo-engines.md
)";

int list_agents() {
  for (const kxo::AgentKind& kind : kxo::agent_kinds()) {
    fmt::print("{:<10}{}\n", kind.name, kind.summary);
    std::string line;
    const auto end_line = [&line] {
      if (!line.empty()) fmt::print("{:<10}{}\n", "", dim(line, STDOUT_FILENO));
      line.clear();
    };
    for (const auto& [name, fallback] : kxo::options_of(kind)) {
      const std::string option = fmt::format("{}={}", name, fallback);
      if (line.size() + 1 + option.size() > 70) end_line();
      line += (line.empty() ? "" : " ") + option;
    }
    end_line();
  }
  return kOk;
}

}  // namespace

void add_kxo(CLI::App& app, Registry& registry) {
  CLI::App* kxo = app.add_subcommand("kxo", "Games of rows: agents, perfect play, matches");
  kxo->require_subcommand(1);
  kxo->footer(std::string(kExamples));
  CLI::App* agents = kxo->add_subcommand("agents", "List the agents and their options");
  agents->footer(
      "\nExample:\n  tandem kxo agents\n\nEach option with its value where it is not given; N, "
      "TIME "
      "and TEXT: none.\n");
  registry.emplace_back(agents, list_agents);
  add_kxo_match(*kxo, registry);
  add_kxo_play(*kxo, registry);
  add_kxo_watch(*kxo, registry);
  add_kxo_replay(*kxo, registry);
  add_kxo_regret(*kxo, registry);
  add_kxo_solve(*kxo, registry);
  add_kxo_train(*kxo, registry);
  add_kxo_export(*kxo, registry);
}

void add_budget_options(CLI::App& command, kxo::Budget& budget, const std::string& otherwise) {
  // What is given replaces the default, and not what else is given.
  auto given = std::make_shared<kxo::Budget>();
  const auto set_time = [&budget, given](const std::string& text) {
    const auto time = kxo::parse_time(text);
    if (!time) throw CLI::ValidationError("--time", time.error());
    given->time = *time;
    budget = *given;
  };
  const auto set_work = [&budget, given](std::uint64_t work) {
    given->work = work;
    budget = *given;
  };
  command.add_option_function<std::string>("--time", set_time, "of a move, at most")
      ->option_text("TIME [" + otherwise + "]");
  command.add_option_function<std::uint64_t>("--work", set_work, "nodes or iterations of a move")
      ->option_text("N")
      ->check(whole_number());
}

std::string budget_text(const kxo::Budget& budget) {
  if (budget.unlimited()) return "limits are the agents' own";
  std::string text = "at most ";
  if (budget.time.count() != 0) text += human_time(budget.time);
  if (budget.time.count() != 0 && budget.work != 0) text += " and ";
  if (budget.work != 0) text += fmt::format("{} nodes or iterations", budget.work);
  return text + " a move";
}

Result<std::unique_ptr<kxo::Agent>, Failure> make_agent(std::string_view what,
                                                        const std::string& text,
                                                        const kxo::Rules& rules) {
  auto agent = kxo::make_agent(text, rules);
  if (agent) return std::move(*agent);
  return Unexpected{
      Failure{kUsage, fmt::format("{}: {}; try: tandem kxo agents", what, agent.error())}};
}

}  // namespace tandem::cli
