// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/detail/evaluation.hpp"

#include <algorithm>
#include <bit>

#include "tandem/kxo/learner.hpp"
#include "tandem/kxo/regret.hpp"

namespace tandem::kxo::detail {
namespace {

constexpr std::uint64_t kStream = 3ULL << 40;  // beside those of agents, positions and learning
constexpr std::uint64_t kPositions = 4'000;
constexpr int kGames = 200;
constexpr std::uint64_t kMostRandomPlies = 6;

int random_move(const Rules& rules, const Position& position, Random& random) {
  const Cells free = rules.free(position);
  const auto count = static_cast<std::uint64_t>(std::popcount(free));
  return nth_cell(free, static_cast<int>(random.below(count)));
}

/// Plays on from `position`. A player without a model moves at random.
Outcome play_on(const Rules& rules, Position position, const ValueModel* o, const ValueModel* x,
                Random& random) {
  while (rules.outcome(position) == Outcome::kOpen) {
    const ValueModel* const model = position.to_move() == Player::kO ? o : x;
    position = position.after(model != nullptr ? greedy_move(*model, position, random)
                                               : random_move(rules, position, random));
  }
  return rules.outcome(position);
}

/// An open one, after an even or odd number of random moves.
Position random_beginning(const Rules& rules, Random& random) {
  for (;;) {
    Position position;
    const auto most = std::min(kMostRandomPlies, static_cast<std::uint64_t>(rules.cells() - 1));
    for (auto plies = random.below(most + 1);
         plies > 0 && rules.outcome(position) == Outcome::kOpen; --plies) {
      position = position.after(random_move(rules, position, random));
    }
    if (rules.outcome(position) == Outcome::kOpen) return position;
  }
}

}  // namespace

std::shared_ptr<const Solution> solution_with_regret(const Rules& rules) {
  const auto solution = Solution::shared(rules);
  return solution && have_regret(**solution) ? *solution : nullptr;
}

double kept_share(const std::shared_ptr<const ValueModel>& model, const Solution& solution,
                  std::uint64_t seed) {
  return measure_regret(*greedy_agent(model), solution, kPositions, seed)->kept_share();
}

double points_against(const ValueModel& model, const ValueModel& other, GameKey key) {
  const Rules& rules = model.rules();
  Random random(key, kStream);
  double points = 0;
  for (int game = 0; game < kGames; game += 2) {
    const Position beginning = random_beginning(rules, random);
    const Outcome as_o = play_on(rules, beginning, &model, &other, random);
    const Outcome as_x = play_on(rules, beginning, &other, &model, random);
    points += as_o == Outcome::kO ? 1 : as_o == Outcome::kDraw ? 0.5 : 0;
    points += as_x == Outcome::kX ? 1 : as_x == Outcome::kDraw ? 0.5 : 0;
  }
  return points / kGames;
}

double lost_to_random(const ValueModel& model, GameKey key) {
  Random random(key, kStream + 1);
  int lost = 0;
  for (int game = 0; game < kGames; game += 2) {
    lost += play_on(model.rules(), {}, &model, nullptr, random) == Outcome::kX ? 1 : 0;
    lost += play_on(model.rules(), {}, nullptr, &model, random) == Outcome::kO ? 1 : 0;
  }
  return static_cast<double>(lost) / kGames;
}

}  // namespace tandem::kxo::detail
