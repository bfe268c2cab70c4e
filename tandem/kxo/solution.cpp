// SPDX-License-Identifier: Apache-2.0
// A value is one byte that orders positions as their player does: 0 is unknown, kDraw a draw, above
// it wins, the faster the higher, below it losses, the later the higher.
#include "tandem/kxo/solution.hpp"

#include <algorithm>
#include <bit>

namespace tandem::kxo {
namespace {

constexpr std::uint8_t kDraw = 128;
constexpr std::uint8_t kLostNow = 1;  // the other player has just made a row

/// From a value after a move to its value for who made the move.
constexpr std::uint8_t before_move(std::uint8_t value) noexcept {
  if (value == kDraw) return kDraw;
  return static_cast<std::uint8_t>(value < kDraw ? 256 - value : 258 - value);
}

}  // namespace

Result<Solution> Solution::of(const Rules& rules) {
  if (rules.cells() > kMostCells) return errno_error(EFBIG);
  Solution solution(rules);
  solution.solve({}, 0);
  return solution;
}

Solution::Solution(const Rules& rules) : rules_(rules) {
  std::uint32_t power = 1;
  for (int cell = 0; cell < rules.cells(); ++cell) {
    powers_[static_cast<std::size_t>(cell)] = power;
    power *= 3;
  }
  values_.resize(power);
}

std::uint32_t Solution::index(const Position& position) const noexcept {
  std::uint32_t sum = 0;
  for (Cells rest = position.o; rest != 0; rest &= rest - 1) {
    sum += powers_[static_cast<std::size_t>(std::countr_zero(rest))];
  }
  for (Cells rest = position.x; rest != 0; rest &= rest - 1) {
    sum += 2 * powers_[static_cast<std::size_t>(std::countr_zero(rest))];
  }
  return sum;
}

/// `at`: the index of `position`, in which the player who moved last has no row.
std::uint8_t Solution::solve(const Position& position, std::uint32_t at) {
  if (values_[at] != 0) return values_[at];
  ++positions_;
  const Player player = position.to_move();
  const std::uint32_t stone = player == Player::kO ? 1 : 2;
  std::uint8_t best = rules_.free(position) == 0 ? kDraw : 0;
  for (Cells rest = rules_.free(position); rest != 0; rest &= rest - 1) {
    const int cell = std::countr_zero(rest);
    const std::uint32_t next = at + stone * powers_[static_cast<std::size_t>(cell)];
    const Cells mine = position.of(player) | cell_bit(cell);
    if (rules_.has_row(mine)) values_[next] = kLostNow;
    const std::uint8_t after =
        values_[next] != 0 ? values_[next] : solve(position.after(cell), next);
    best = std::max(best, before_move(after));
  }
  return values_[at] = best;
}

Value Solution::value(const Position& position) const noexcept {
  const std::uint8_t value = values_[index(position)];
  if (value == kDraw) return {Value::Kind::kDraw, rules_.cells() - position.plies()};
  if (value < kDraw) return {Value::Kind::kLoss, value - kLostNow};
  return {Value::Kind::kWin, 256 - value};
}

Cells Solution::best(const Position& position) const noexcept {
  return moves(position, [&](std::uint8_t here, std::uint8_t after) { return here == after; });
}

Cells Solution::keeping(const Position& position) const noexcept {
  const auto kind = [](std::uint8_t value) { return (value > kDraw) - (value < kDraw); };
  return moves(position,
               [&](std::uint8_t here, std::uint8_t after) { return kind(here) == kind(after); });
}

template <class Keep>
Cells Solution::moves(const Position& position, Keep keep) const noexcept {
  if (rules_.outcome(position) != Outcome::kOpen) return 0;
  const std::uint32_t at = index(position);
  const std::uint32_t stone = position.to_move() == Player::kO ? 1 : 2;
  Cells kept = 0;
  for (Cells rest = rules_.free(position); rest != 0; rest &= rest - 1) {
    const int cell = std::countr_zero(rest);
    const std::uint32_t next = at + stone * powers_[static_cast<std::size_t>(cell)];
    if (keep(values_[at], before_move(values_[next]))) kept |= cell_bit(cell);
  }
  return kept;
}

}  // namespace tandem::kxo
