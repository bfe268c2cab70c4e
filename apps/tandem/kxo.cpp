// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/kxo.hpp"

#include "apps/options/options.hpp"
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

void add_kxo(const Command& app) {
  const Command kxo = app.subcommand("kxo", "Games of rows: agents, perfect play, matches");
  kxo.require_subcommand();
  kxo.footer(kExamples);
  const Command agents = kxo.subcommand("agents", "List the agents and their options");
  agents.footer(
      "\nExample:\n  tandem kxo agents\n\nEach option with its value where it is not given; N, "
      "TIME "
      "and TEXT: none.\n");
  agents.action(list_agents);
  add_kxo_match(kxo);
  add_kxo_play(kxo);
  add_kxo_watch(kxo);
  add_kxo_replay(kxo);
  add_kxo_regret(kxo);
  add_kxo_solve(kxo);
  add_kxo_train(kxo);
  add_kxo_export(kxo);
}

void add_budget_options(const Command& command, kxo::Budget& budget, const std::string& otherwise) {
  // What is given replaces the default, and not what else is given.
  auto given = std::make_shared<kxo::Budget>();
  const auto set_time = [&budget, given](const std::string& text) {
    const auto time = kxo::parse_time(text);
    if (!time) return time.error();
    given->time = *time;
    budget = *given;
    return std::string();
  };
  const auto set_work = [&budget, given](const std::string& text) {
    if (std::string wrong = whole_number()(text); !wrong.empty()) return wrong;
    given->work = std::stoull(text);
    budget = *given;
    return std::string();
  };
  command.option_read_by(set_time, "--time", "of a move, at most").text("TIME [" + otherwise + "]");
  command.option_read_by(set_work, "--work", "nodes or iterations of a move").text("N");
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
  std::string hint = "tandem kxo agents";
  // "PATH: is a model of 3x3-3, not of 4x4-3"
  constexpr std::string_view kOtherGame = ": is a model of ";
  if (const auto at = agent.error().rfind(kOtherGame); at != std::string::npos) {
    const std::string game = agent.error().substr(at + kOtherGame.size());
    hint = "--game " + game.substr(0, game.find(','));
  }
  return Unexpected{Failure{kUsage, fmt::format("{}: {}; try: {}", what, agent.error(), hint)}};
}

}  // namespace tandem::cli
