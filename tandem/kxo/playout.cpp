// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/playout.hpp"

#include <bit>
#include <utility>

namespace tandem::kxo {
namespace {

/// Numbers below small bounds, several from one of `random`'s: of a 64-bit fraction, times the
/// bound, the whole part is the number and the rest the next fraction.
class Picks {
 public:
  explicit Picks(Random& random) : random_(random) {}

  unsigned below(unsigned bound) noexcept {
    // Eight bounds of at most 64 take 48 of the bits.
    if (left_-- == 0) {
      fraction_ = random_();
      left_ = 7;
    }
    const Wide product = static_cast<Wide>(fraction_) * bound;
    fraction_ = static_cast<std::uint64_t>(product);
    return static_cast<unsigned>(product >> 64);
  }

 private:
  __extension__ using Wide = unsigned __int128;
  Random& random_;
  std::uint64_t fraction_ = 0;
  unsigned left_ = 0;
};

}  // namespace

Outcome playout(const Rules& rules, const Position& position, Random& random) noexcept {
  std::uint8_t free[Rules::kMostCells];
  unsigned count = 0;
  for (Cells rest = rules.free(position); rest != 0; rest &= rest - 1) {
    free[count++] = static_cast<std::uint8_t>(std::countr_zero(rest));
  }
  Picks picks(random);
  Cells mine = position.of(position.to_move());
  Cells theirs = position.taken() & ~mine;
  bool o_moves = position.to_move() == Player::kO;
  while (count > 0) {
    std::uint8_t& picked = free[picks.below(count)];
    mine |= cell_bit(picked);
    picked = free[--count];
    if (rules.has_row(mine)) return o_moves ? Outcome::kO : Outcome::kX;
    std::swap(mine, theirs);
    o_moves = !o_moves;
  }
  return Outcome::kDraw;
}

}  // namespace tandem::kxo
