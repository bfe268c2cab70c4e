// SPDX-License-Identifier: Apache-2.0
/// tandem kxo regret: agents beside perfect play.
#include <nlohmann/json.hpp>

#include "apps/options/options.hpp"
#include "apps/tandem/kxo.hpp"
#include "apps/tandem/progress.hpp"
#include "tandem/kxo/notation.hpp"
#include "tandem/kxo/regret.hpp"

namespace tandem::cli {
namespace {

constexpr std::string_view kExamples = R"(
Examples:
  tandem kxo regret mcts negamax td
  tandem kxo regret mcts:threads=2 --game 4x4-4 --time 500us
  tandem kxo regret mcts --work 2000 --json

Every agent moves once in the same random positions, of up to eight plies, in
which some move loses value. kept: its moves that keep the value of the game;
best: those that also win as fast, or lose as late, as can be. With --work
instead of --time, agents of one thread give the same shares each time.
JSON: {"schema": 1, "agents": [...]}, times in nanoseconds.
)";

struct Settings {
  std::vector<std::string> agents;
  kxo::Rules rules = kxo::Rules::standard();
  std::uint64_t positions = 1000, seed = 1;
  kxo::Budget budget{std::chrono::milliseconds(1), 0};
  bool as_json = false;
};

using Measured = std::vector<std::pair<std::string, kxo::Regret>>;

double share(std::uint64_t part, std::uint64_t of) {
  return static_cast<double>(part) / static_cast<double>(of);
}

double work_a_second(const kxo::Regret& regret) {
  return static_cast<double>(regret.work) / std::chrono::duration<double>(regret.time).count();
}

void print_table(const Settings& settings, const Measured& measured) {
  fmt::print("{}, {} positions of seed {}, {}\n\n", kxo::game_name(settings.rules),
             settings.positions, settings.seed, budget_text(settings.budget));
  Table table({"agent", "kept", "best", "median", "mean", "longest", "work/s"});
  for (const auto& [name, regret] : measured) {
    table.add(
        {name, fmt::format("{:.2f} %", 100 * regret.kept_share()),
         fmt::format("{:.2f} %", 100 * share(regret.best, regret.positions)),
         human_time(regret.median),
         human_time(regret.time / static_cast<std::int64_t>(regret.positions)),
         human_time(regret.longest),
         regret.work == 0 ? "-" : human_count(static_cast<std::uint64_t>(work_a_second(regret)))});
  }
  table.print();
}

void print_json(const Settings& settings, const Measured& measured) {
  nlohmann::ordered_json json;
  json["schema"] = 1;
  json["game"] = kxo::game_name(settings.rules);
  json["positions"] = settings.positions;
  json["seed"] = settings.seed;
  json["time_ns"] = settings.budget.time.count();
  json["work"] = settings.budget.work;
  json["agents"] = nlohmann::ordered_json::array();
  for (const auto& [name, regret] : measured) {
    json["agents"].push_back({{"agent", name},
                              {"kept", regret.kept},
                              {"best", regret.best},
                              {"kept_share", regret.kept_share()},
                              {"best_share", share(regret.best, regret.positions)},
                              {"median_ns", regret.median.count()},
                              {"total_ns", regret.time.count()},
                              {"longest_ns", regret.longest.count()},
                              {"work", regret.work}});
  }
  // Names of agents are bytes that somebody typed.
  fmt::print("{}\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

int run(const Settings& settings) {
  const auto solution = kxo::Solution::shared(settings.rules);
  if (!solution) {
    return report({kUsage, fmt::format("kxo regret: {} has more than {} cells, and is not solved; "
                                       "try: tandem kxo match",
                                       kxo::game_name(settings.rules), kxo::Solution::kMostCells)});
  }
  // All of them before the first one plays: a wrong name is told at once.
  std::vector<std::unique_ptr<kxo::Agent>> agents;
  for (const std::string& text : settings.agents) {
    auto agent = make_agent("kxo regret", text, settings.rules);
    if (!agent) return report(agent.error());
    agents.push_back(std::move(*agent));
  }
  Measured measured;
  Progress progress;
  for (std::size_t i = 0; i < agents.size(); ++i) {
    const std::string& name = settings.agents[i];
    auto drawn = std::chrono::steady_clock::time_point();
    const auto tell = [&](std::uint64_t done) {
      const auto now = std::chrono::steady_clock::now();
      if (now - drawn < std::chrono::milliseconds(100)) return;
      drawn = now;
      progress.draw(share(done, settings.positions),
                    fmt::format("{} of {}: {:.30}", i + 1, agents.size(), name));
    };
    const auto regret = kxo::measure_regret(*agents[i], **solution, settings.positions,
                                            settings.seed, settings.budget, tell);
    if (!regret && regret.error() == std::errc::argument_out_of_domain) {
      return report({kUsage, fmt::format("kxo regret: no move of {} loses value; try: --game 4x4-4",
                                         kxo::game_name(settings.rules))});
    }
    if (!regret) {
      return report({kFailure, fmt::format("kxo regret: {}: no move: {}; try: docs/kxo-engines.md",
                                           name, kxo::why_no_move(regret.error()))});
    }
    measured.emplace_back(name, *regret);
  }
  progress.clear();
  settings.as_json ? print_json(settings, measured) : print_table(settings, measured);
  return kOk;
}

}  // namespace

void add_kxo_regret(const Command& kxo) {
  auto settings = std::make_shared<Settings>();
  const Command command = kxo.subcommand("regret", "Compare agents with perfect play");
  command.option("AGENT", settings->agents, "NAME or NAME:OPTION=VALUE,…").required();
  add_game_option(command, settings->rules);
  command.option("--positions", settings->positions, "how many each agent is asked about")
      .text("N [1000]")
      .check(whole_number(1, 10'000'000));
  command.option("--seed", settings->seed, "of the positions and the agents")
      .text("S [1]")
      .check(whole_number());
  add_budget_options(command, settings->budget, "1ms");
  command.flag("--json", settings->as_json, "as JSON");
  command.footer(kExamples);
  command.action([settings] { return run(*settings); });
}

}  // namespace tandem::cli
