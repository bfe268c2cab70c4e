// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/learner.hpp"

#include <array>
#include <bit>
#include <limits>
#include <utility>

namespace tandem::kxo {
namespace {

constexpr std::uint64_t kStream = 2ULL << 40;  // beside those of agents

int any_cell(Cells cells, Random& random) noexcept {
  if (std::has_single_bit(cells)) return std::countr_zero(cells);
  const auto count = static_cast<std::uint64_t>(std::popcount(cells));
  return nth_cell(cells, static_cast<int>(random.below(count)));
}

class GreedyAgent final : public Agent {
 public:
  explicit GreedyAgent(std::shared_ptr<const ValueModel> model)
      : Agent(model->rules()), model_(std::move(model)) {}

 private:
  Result<int> do_choose(const Position& position, const Budget&) override {
    Random numbers = random(position);
    return greedy_move(*model_, position, numbers);
  }
  std::shared_ptr<const ValueModel> model_;
};

}  // namespace

double Learning::rate_at(std::uint64_t game) const noexcept {
  if (halved_after == 0) return rate;
  return rate / (1 + static_cast<double>(game) / static_cast<double>(halved_after));
}

Learning Learning::of(Method method, ValueModel::Kind kind) {
  Learning learning;
  learning.method = method;
  if (kind == ValueModel::Kind::kNetwork) {
    learning.rate = 0.05;
    return learning;
  }
  // What the best answer leaves is no sample of chance: it replaces what was thought before. All
  // positions have to come up often enough, also those that only bad moves lead to.
  learning.rate = 1;
  learning.lambda = 0.2;
  learning.exploration = 0.5;
  learning.random_plies = 14;
  return learning;
}

Choice best_moves(const ValueModel& model, const Position& position) noexcept {
  const Rules& rules = model.rules();
  const Cells free = rules.free(position);
  const Cells wins = rules.completing(position.of(position.to_move())) & free;
  if (wins != 0) return {wins, 1};
  if (std::has_single_bit(free)) return {free, 0};
  Choice best{0, -std::numeric_limits<float>::infinity()};
  for (Cells rest = free; rest != 0; rest &= rest - 1) {
    const int cell = std::countr_zero(rest);
    const float value = model.value(position.after(cell));
    if (value > best.value) best = {0, value};
    if (value == best.value) best.cells |= cell_bit(cell);
  }
  return best;
}

int greedy_move(const ValueModel& model, const Position& position, Random& random) noexcept {
  return any_cell(best_moves(model, position).cells, random);
}

std::unique_ptr<Agent> greedy_agent(std::shared_ptr<const ValueModel> model) {
  return std::make_unique<GreedyAgent>(std::move(model));
}

void play_game(const ValueModel& model, const Learning& learning, GameKey key,
               std::vector<Lesson>& lessons) {
  const Rules& rules = model.rules();
  Random random(key, kStream);
  Position position;
  auto opening = random.below(static_cast<std::uint64_t>(learning.random_plies) + 1);
  /// A position, and what the best move in it promised, to who made it.
  struct Step {
    Position position;
    float best = 0;
    bool played = false;  // one of the best moves
  };
  std::array<Step, Rules::kMostCells> steps;
  std::size_t count = 0;
  while (rules.outcome(position) == Outcome::kOpen) {
    const Choice best = best_moves(model, position);
    const bool explores = opening > 0 || random.unit() < learning.exploration;
    if (opening > 0) --opening;
    const int cell = any_cell(explores ? rules.free(position) : best.cells, random);
    steps[count++] = {position, best.value, (best.cells & cell_bit(cell)) != 0};
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
    // A move that is not among the best says nothing about the position before it.
    if (learning.method == Learning::Method::kTd && step.played) {
      value += lambda * (rest - value);
    }
    const float target = -discount * value;
    lessons.push_back(model.lesson(step.position, target));
    rest = target;
  }
}

void learn_from_game(ValueModel& model, const Learning& learning, GameKey key) {
  std::vector<Lesson> lessons;
  lessons.reserve(static_cast<std::size_t>(model.rules().cells()));
  play_game(model, learning, key, lessons);
  model.learn(lessons, static_cast<float>(learning.rate_at(key.game)));
}

}  // namespace tandem::kxo
