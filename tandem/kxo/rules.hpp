// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>
#include <memory>

#include "tandem/base/result.hpp"

/// The game: two players in turn put a stone of theirs on a free cell of a board; who first has
/// `goal` in a row, horizontally, vertically or diagonally, wins. Longer rows count, too. O begins.
namespace tandem::kxo {

enum class Player : std::uint8_t { kO, kX };

constexpr Player opponent(Player player) noexcept {
  return player == Player::kO ? Player::kX : Player::kO;
}

/// A set of cells: bit `row * width + column`.
using Cells = std::uint64_t;

constexpr Cells cell_bit(int cell) noexcept { return Cells{1} << cell; }

/// The cell that `n` others of `cells` come before; there have to be more than `n`.
constexpr int nth_cell(Cells cells, int n) noexcept {
  for (; n > 0; --n) cells &= cells - 1;
  return std::countr_zero(cells);
}

/// The stones on a board. Whose turn it is follows from their number.
struct Position {
  Cells o = 0;
  Cells x = 0;

  constexpr Cells taken() const noexcept { return o | x; }
  constexpr Cells of(Player player) const noexcept { return player == Player::kO ? o : x; }
  constexpr int plies() const noexcept { return std::popcount(taken()); }
  constexpr Player to_move() const noexcept { return plies() % 2 == 0 ? Player::kO : Player::kX; }
  /// After the player whose turn it is took `cell`, which has to be free.
  constexpr Position after(int cell) const noexcept {
    Position next = *this;
    (to_move() == Player::kO ? next.o : next.x) |= cell_bit(cell);
    return next;
  }
  friend constexpr bool operator==(const Position&, const Position&) = default;
};

enum class Outcome : std::uint8_t { kOpen, kO, kX, kDraw };

/// The rules on one size of board; a copy shares its tables. Thread safety: immutable.
class Rules {
 public:
  static constexpr int kMostCells = 64;

  /// Units: sides in cells. Errors: EINVAL where a side or `goal` is below 1, the board has more
  ///        than kMostCells, or `goal` fits in neither direction.
  static Result<Rules> make(int width, int height, int goal);
  /// 4 by 4, three in a row.
  static Rules standard();

  int width() const noexcept { return width_; }
  int height() const noexcept { return height_; }
  int goal() const noexcept { return goal_; }
  int cells() const noexcept { return width_ * height_; }
  Cells all() const noexcept { return all_; }

  /// Whether `stones`, of one player, hold a row of `goal`.
  bool has_row(Cells stones) const noexcept {
    if (rows_ != nullptr) return (rows_.get()[stones / 64] >> (stones % 64) & 1) != 0;
    return finds_row(stones);
  }
  /// The cells that complete a row together with `stones`, taken or not.
  Cells completing(Cells stones) const noexcept;
  Outcome outcome(const Position& position) const noexcept {
    if (has_row(position.o)) return Outcome::kO;
    if (has_row(position.x)) return Outcome::kX;
    return position.taken() == all_ ? Outcome::kDraw : Outcome::kOpen;
  }
  Cells free(const Position& position) const noexcept { return all_ & ~position.taken(); }

  friend bool operator==(const Rules& a, const Rules& b) noexcept {
    return a.width_ == b.width_ && a.height_ == b.height_ && a.goal_ == b.goal_;
  }

 private:
  /// One of the four ways a row can run.
  struct Direction {
    int step = 0;      // from a cell to the next one of a row
    Cells starts = 0;  // cells at which a row of `goal` can begin
  };
  /// Boards of at most this many cells have a table of all sets of stones.
  static constexpr int kTableCells = 16;

  Rules(int width, int height, int goal);
  bool finds_row(Cells stones) const noexcept;

  int width_;
  int height_;
  int goal_;
  Cells all_;
  Direction directions_[4];
  std::shared_ptr<const std::uint64_t[]> rows_;  // bit `stones`: has_row()
};

}  // namespace tandem::kxo
