// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/learner.hpp"

#include <array>
#include <bit>
#include <limits>

namespace tandem::kxo {
namespace {

constexpr std::uint64_t kStream = 2ULL << 40;  // beside those of agents

int any_cell(Cells free, Random& random) noexcept {
  const auto count = static_cast<std::uint64_t>(std::popcount(free));
  return nth_cell(free, static_cast<int>(random.below(count)));
}

/// A move, and what it promises who makes it.
struct Choice {
  int cell = 0;
  float value = 0;
};

/// Nobody has a row in `position`, and there is a free cell.
Choice best_choice(const ValueModel& model, const Position& position, Random& random) noexcept {
  const Rules& rules = model.rules();
  const Cells free = rules.free(position);
  const Cells wins = rules.completing(position.of(position.to_move())) & free;
  if (wins != 0) return {any_cell(wins, random), 1};
  if (std::has_single_bit(free)) return {std::countr_zero(free), 0};
  Choice best{0, -std::numeric_limits<float>::infinity()};
  unsigned equal = 0;
  for (Cells rest = free; rest != 0; rest &= rest - 1) {
    const int cell = std::countr_zero(rest);
    const float value = model.value(position.after(cell));
    if (value < best.value) continue;
    equal = value > best.value ? 1 : equal + 1;
    if (equal == 1 || random.below(equal) == 0) best = {cell, value};
  }
  return best;
}

}  // namespace

Learning Learning::of(Method method, ValueModel::Kind kind) {
  Learning learning;
  learning.method = method;
  if (kind == ValueModel::Kind::kNetwork) {
    learning.rate = 0.05;
  } else if (method == Method::kQ) {
    // What the best answer leaves is no sample of chance: it replaces what was thought before.
    learning.rate = 1;
  }
  return learning;
}

int greedy_move(const ValueModel& model, const Position& position, Random& random) noexcept {
  return best_choice(model, position, random).cell;
}

void learn_from_game(ValueModel& model, const Learning& learning, GameKey key) {
  const Rules& rules = model.rules();
  Random random(key, kStream);
  Position position;
  auto opening = random.below(static_cast<std::uint64_t>(learning.random_plies) + 1);
  /// A position, and what the best move in it promised, to who made it.
  struct Step {
    Position position;
    float best = 0;
    bool played = false;  // that move, and no other one
  };
  std::array<Step, Rules::kMostCells> steps;
  std::size_t count = 0;
  while (rules.outcome(position) == Outcome::kOpen) {
    const Choice best = best_choice(model, position, random);
    const bool explores = opening > 0 || random.unit() < learning.exploration;
    if (opening > 0) --opening;
    const int cell = explores ? any_cell(rules.free(position), random) : best.cell;
    steps[count++] = {position, best.value, cell == best.cell};
    position = position.after(cell);
  }
  // From the end: what is learned of a position serves the one before it at once. The value of a
  // position, for who moved last, is the opposite of what its best move promises.
  const bool decided = rules.outcome(position) != Outcome::kDraw;
  auto rest = static_cast<float>(decided ? 1 : 0);  // of the game as it was played, for who moves
  const auto discount = static_cast<float>(learning.discount);
  const auto lambda = static_cast<float>(learning.lambda);
  for (std::size_t i = count; i-- > 1;) {
    const Step& step = steps[i];
    float value = step.best;
    // A random move says nothing about the position before it.
    if (learning.method == Learning::Method::kTd && step.played) {
      value += lambda * (rest - value);
    }
    const float target = -discount * value;
    model.learn(step.position, target, static_cast<float>(learning.rate));
    rest = target;
  }
}

}  // namespace tandem::kxo
