// SPDX-License-Identifier: Apache-2.0
// A value is one byte that orders positions as their player does: kDraw is a draw, above it
// are wins, the faster the higher, below it losses, the later the higher.
#include "tandem/kxo/solution.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include "tandem/kxo/detail/shared_cache.hpp"

namespace tandem::kxo {
namespace {

constexpr std::uint8_t kDraw = 128;
constexpr std::uint8_t kLostNow = 1;  // the other player has just made a row

/// From a value after a move to its value for who made the move.
constexpr std::uint8_t before_move(std::uint8_t value) noexcept {
  if (value == kDraw) return kDraw;
  return static_cast<std::uint8_t>(value < kDraw ? 256 - value : 258 - value);
}

constexpr Value::Kind kind_of(std::uint8_t value) noexcept {
  if (value == kDraw) return Value::Kind::kDraw;
  return value < kDraw ? Value::Kind::kLoss : Value::Kind::kWin;
}

}  // namespace

Result<Solution> Solution::of(const Rules& rules) {
  if (rules.cells() > kMostCells) return errno_error(EFBIG);
  Solution solution(rules);
  solution.solve();
  return solution;
}

Result<std::shared_ptr<const Solution>> Solution::shared(const Rules& rules) {
  static auto& cache = detail::SharedCache<Rules, Solution>::for_ever();
  return cache.get(rules, [&]() -> Result<std::shared_ptr<const Solution>> {
    auto solution = of(rules);
    if (!solution) return Unexpected{solution.error()};
    return std::shared_ptr<const Solution>(std::make_shared<const Solution>(std::move(*solution)));
  });
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

/// From full boards to the empty one: each position after those that follow from it. Without a row
/// any order of the stones is a game, so that every such position can be reached.
void Solution::solve() {
  std::vector<std::uint32_t> sums(static_cast<std::size_t>(rules_.all()) + 1);  // index() of O's
  std::vector<std::uint16_t> completing(sums.size());
  for (Cells stones = 0; stones <= rules_.all(); ++stones) {
    sums[stones] = index({stones, 0});
    completing[stones] = static_cast<std::uint16_t>(rules_.completing(stones));
  }
  for (int plies = rules_.cells(); plies >= 0; --plies) {
    for (Cells o = 0; o <= rules_.all(); ++o) {
      if (std::popcount(o) != (plies + 1) / 2 || rules_.has_row(o)) continue;
      solve_with(o, plies / 2, sums, completing);
    }
  }
}

/// All positions with these stones of O, and so many of X.
void Solution::solve_with(Cells o, int x_stones, const std::vector<std::uint32_t>& sums,
                          const std::vector<std::uint16_t>& completing) {
  const Cells others = rules_.all() & ~o;
  const bool o_moves = std::popcount(o) == x_stones;
  for (Cells x = others;; x = (x - 1) & others) {  // every subset
    if (std::popcount(x) == x_stones && !rules_.has_row(x)) {
      const std::uint32_t at = sums[o] + 2 * sums[x];
      const Cells free = others & ~x;
      Cells moves = free;
      std::uint8_t best = free == 0 ? kDraw : 0;
      if ((completing[o_moves ? o : x] & free) != 0) {
        best = before_move(kLostNow);
        moves = 0;
      } else if (const Cells threats = completing[o_moves ? x : o] & free; threats != 0) {
        // Whoever does not answer it loses in two plies, and nothing is worse.
        moves = std::has_single_bit(threats) ? threats : 0;
        best = before_move(before_move(kLostNow));
      }
      for (; moves != 0; moves &= moves - 1) {
        const std::uint32_t stone = powers_[static_cast<std::size_t>(std::countr_zero(moves))];
        best = std::max(best, before_move(values_[at + (o_moves ? stone : 2 * stone)]));
      }
      values_[at] = best;
      ++counts_[static_cast<std::size_t>(kind_of(best))];
    }
    if (x == 0) return;
  }
}

std::uint8_t Solution::value_at(const Position& position) const noexcept {
  const bool lost = rules_.has_row(position.of(opponent(position.to_move())));
  return lost ? kLostNow : values_[index(position)];
}

Value Solution::value(const Position& position) const noexcept {
  const std::uint8_t value = value_at(position);
  switch (kind_of(value)) {
    case Value::Kind::kLoss:
      return {Value::Kind::kLoss, value - kLostNow};
    case Value::Kind::kDraw:
      return {Value::Kind::kDraw, rules_.cells() - position.plies()};
    default:
      return {Value::Kind::kWin, 256 - value};
  }
}

Value Solution::value_of_move(const Position& position, int cell) const noexcept {
  const Value after = value(position.after(cell));  // of the other player
  const Value::Kind kind = after.kind == Value::Kind::kLoss  ? Value::Kind::kWin
                           : after.kind == Value::Kind::kWin ? Value::Kind::kLoss
                                                             : Value::Kind::kDraw;
  return {kind, after.plies + 1};
}

Cells Solution::best(const Position& position) const noexcept {
  return moves(position, [&](std::uint8_t here, std::uint8_t after) { return here == after; });
}

Cells Solution::keeping(const Position& position) const noexcept {
  return moves(position, [&](std::uint8_t here, std::uint8_t after) {
    return kind_of(here) == kind_of(after);
  });
}

template <class Keep>
Cells Solution::moves(const Position& position, Keep keep) const noexcept {
  if (rules_.outcome(position) != Outcome::kOpen) return 0;
  const std::uint8_t here = value_at(position);
  Cells kept = 0;
  for (Cells rest = rules_.free(position); rest != 0; rest &= rest - 1) {
    const int cell = std::countr_zero(rest);
    if (keep(here, before_move(value_at(position.after(cell))))) kept |= cell_bit(cell);
  }
  return kept;
}

}  // namespace tandem::kxo
