// SPDX-License-Identifier: Apache-2.0
#include "bench/kxo_agents.hpp"

#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <string_view>

#include "bench/harness.hpp"
#include "bench/memory.hpp"
#include "tandem/base/check.hpp"
#include "tandem/kxo/agent.hpp"
#include "tandem/kxo/playout.hpp"
#include "tandem/kxo/regret.hpp"
#include "tandem/kxo/solution.hpp"

namespace tandem::bench {
namespace {

constexpr std::uint64_t kSeed = 1;
constexpr std::uint64_t kPositions = 1000;  // to judge an agent by
constexpr std::uint64_t kMostNodes = 1 << 20;

std::unique_ptr<kxo::Agent> agent(std::string_view text, const kxo::Rules& rules) {
  return kxo::make_agent(text, rules).value();
}

double seconds_since(std::int64_t start_ns) {
  return static_cast<double>(cpu_ns() - start_ns) / 1e9;
}

/// What `agent` counts as work, a second, in the opening of a new game each time.
double work_per_second(kxo::Agent& agent, int rounds) {
  std::uint64_t work = 0;
  const auto start = cpu_ns();
  for (int i = 0; i < rounds; ++i) {
    agent.begin({kSeed, static_cast<std::uint64_t>(i)});
    (void)agent.choose({}).value();
    work += agent.work();
  }
  return static_cast<double>(work) / seconds_since(start);
}

}  // namespace

double playouts_per_second(const kxo::Rules& rules, int count) {
  kxo::Random random({kSeed, 0});
  const auto start = cpu_ns();
  for (int i = 0; i < count; ++i) {
    const auto outcome = kxo::playout(rules, {}, random);
    asm volatile("" : : "r"(static_cast<unsigned>(outcome)));
  }
  return count / seconds_since(start);
}

double mcts_iterations_per_second(const kxo::Rules& rules, int rounds) {
  return work_per_second(*agent("mcts:iterations=10000", rules), rounds);
}

double mcts_threads_iterations_per_second(const kxo::Rules& rules, int threads, int games) {
  const auto mcts = agent(fmt::format("mcts:threads={},time=5ms", threads), rules);
  std::uint64_t work = 0;
  std::chrono::duration<double> time{0};
  for (int i = 0; i < games; ++i) {
    mcts->begin({kSeed, static_cast<std::uint64_t>(i)});
    kxo::Position position;
    while (rules.outcome(position) == kxo::Outcome::kOpen) {
      const auto start = std::chrono::steady_clock::now();
      position = position.after(mcts->choose(position).value());
      time += std::chrono::steady_clock::now() - start;
      work += mcts->work();
    }
  }
  return static_cast<double>(work) / time.count();
}

double negamax_nodes_per_second(const kxo::Rules& rules, int rounds) {
  return work_per_second(*agent("negamax", rules), rounds);
}

double solve_seconds(const kxo::Rules& rules) {
  const auto start = cpu_ns();
  TANDEM_CHECK(kxo::Solution::of(rules).value().positions() > 0);
  return seconds_since(start);
}

double solve_bytes(const kxo::Rules& rules) {
  return peak_bytes([&] { TANDEM_CHECK(kxo::Solution::of(rules).value().positions() > 0); });
}

Frugal frugal_negamax(const kxo::Rules& rules, double percent) {
  const auto solution = kxo::Solution::of(rules).value();
  for (std::uint64_t nodes = 1; nodes <= kMostNodes; nodes *= 2) {
    const auto negamax = agent(fmt::format("negamax:nodes={}", nodes), rules);
    const double kept =
        100 * kxo::measure_regret(*negamax, solution, kPositions, kSeed).value().kept_share();
    if (kept >= percent) return {nodes, kept};
  }
  TANDEM_CHECK(false);
}

GameCost negamax_game(const kxo::Rules& rules, std::uint64_t nodes, int rounds) {
  const auto negamax = agent(fmt::format("negamax:nodes={}", nodes), rules);
  GameCost cost;
  const auto start = cpu_ns();
  for (int i = 0; i < rounds; ++i) {
    negamax->begin({kSeed, static_cast<std::uint64_t>(i)});
    kxo::Position position;
    for (; rules.outcome(position) == kxo::Outcome::kOpen; ++cost.moves) {
      position = position.after(negamax->choose(position).value());
    }
  }
  cost.seconds = seconds_since(start) / rounds;
  cost.moves /= rounds;
  return cost;
}

}  // namespace tandem::bench
