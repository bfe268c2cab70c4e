// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/regret.hpp"

#include <algorithm>
#include <bit>
#include <vector>

namespace tandem::kxo {
namespace {

constexpr int kMostPlies = 8;
constexpr std::uint64_t kStream = 1ULL << 40;  // beside those of agents

bool can_go_wrong(const Solution& solution, const Position& position) {
  const Cells keeping = solution.keeping(position);
  return keeping != 0 && keeping != solution.rules().free(position);
}

bool somewhere_below(const Solution& solution, const Position& position, int plies) {
  if (solution.rules().outcome(position) != Outcome::kOpen) return false;
  if (can_go_wrong(solution, position)) return true;
  if (plies == 0) return false;
  for (Cells rest = solution.rules().free(position); rest != 0; rest &= rest - 1) {
    if (somewhere_below(solution, position.after(std::countr_zero(rest)), plies - 1)) return true;
  }
  return false;
}

}  // namespace

Position position_with_regret(const Solution& solution, std::uint64_t seed, std::uint64_t index) {
  const Rules& rules = solution.rules();
  Random random({seed, index}, kStream);
  for (;;) {
    Position position;
    const auto most = static_cast<std::uint64_t>(std::min(kMostPlies, rules.cells() - 1));
    auto plies = random.below(most + 1);
    for (; plies > 0 && rules.outcome(position) == Outcome::kOpen; --plies) {
      const Cells free = rules.free(position);
      const auto count = static_cast<std::uint64_t>(std::popcount(free));
      position = position.after(nth_cell(free, static_cast<int>(random.below(count))));
    }
    if (can_go_wrong(solution, position)) return position;
  }
}

bool have_regret(const Solution& solution) { return somewhere_below(solution, {}, kMostPlies); }

Result<Regret> measure_regret(Agent& agent, const Solution& solution, std::uint64_t positions,
                              std::uint64_t seed, const Budget& budget,
                              const std::function<void(std::uint64_t)>& tell) {
  if (!have_regret(solution)) return errno_error(EDOM);
  Regret regret;
  std::vector<std::chrono::nanoseconds> times;
  times.reserve(positions);
  for (std::uint64_t i = 0; i < positions; ++i) {
    const Position position = position_with_regret(solution, seed, i);
    agent.begin({seed, i});
    const auto start = std::chrono::steady_clock::now();
    const Result<int> cell = agent.choose(position, budget);
    const auto time = std::chrono::steady_clock::now() - start;
    if (!cell) return Unexpected{cell.error()};
    ++regret.positions;
    regret.kept += solution.keeping(position) >> *cell & 1;
    regret.best += solution.best(position) >> *cell & 1;
    regret.work += agent.work();
    regret.time += time;
    times.push_back(time);
    if (tell) tell(regret.positions);
  }
  if (times.empty()) return regret;
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  regret.median = *middle;
  regret.longest = *std::max_element(middle, times.end());
  return regret;
}

}  // namespace tandem::kxo
