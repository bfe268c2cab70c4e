// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "tandem/base/result.hpp"
#include "tandem/kxo/rules.hpp"

namespace tandem::kxo {

/// What a position is worth to the player whose turn it is, both playing perfectly: a win as fast
/// as possible, a loss as late as possible.
struct Value {
  enum class Kind : std::uint8_t { kLoss, kDraw, kWin };
  Kind kind = Kind::kDraw;
  int plies = 0;  ///< until the game ends

  friend constexpr bool operator==(const Value&, const Value&) = default;
};

/// Perfect play: the value of every position that can be reached.
///
/// Units: one byte for each way to fill the cells, 3^cells in all: 43 MB for sixteen.
/// Thread safety: immutable once made.
class Solution {
 public:
  static constexpr int kMostCells = 16;

  /// Solves the game. Errors: EFBIG for boards of more than kMostCells; std::bad_alloc.
  static Result<Solution> of(const Rules& rules);
  /// One that all who ask for it at the same time share; the first one solves it, the others wait
  /// for that. Thread safety: any thread. Errors: those of of().
  static Result<std::shared_ptr<const Solution>> shared(const Rules& rules);

  const Rules& rules() const noexcept { return rules_; }
  /// `position` has to be reachable: no moves are made after a win.
  Value value(const Position& position) const noexcept;
  /// The value of taking `cell`, a free one of an open game, to who takes it; that ply counts.
  Value value_of_move(const Position& position, int cell) const noexcept;
  /// The free cells that keep value(); those among them that also end a win fastest, or delay a
  /// loss longest. Empty at the end of a game.
  Cells keeping(const Position& position) const noexcept;
  Cells best(const Position& position) const noexcept;
  std::size_t bytes() const noexcept { return values_.size(); }
  /// Positions that can be reached and have no row yet.
  std::size_t positions() const noexcept { return counts_[0] + counts_[1] + counts_[2]; }
  /// How many of them are won, drawn, lost for the player whose turn it is.
  std::size_t positions(Value::Kind kind) const noexcept {
    return counts_[static_cast<std::size_t>(kind)];
  }

 private:
  explicit Solution(const Rules& rules);
  std::uint32_t index(const Position& position) const noexcept;
  std::uint8_t value_at(const Position& position) const noexcept;
  void solve();
  void solve_with(Cells o, int x_stones, const std::vector<std::uint32_t>& sums,
                  const std::vector<std::uint16_t>& completing);
  template <class Keep>
  Cells moves(const Position& position, Keep keep) const noexcept;

  Rules rules_;
  std::array<std::uint32_t, kMostCells> powers_{};  // of 3
  std::vector<std::uint8_t> values_;                // of open positions, by index()
  std::array<std::size_t, 3> counts_{};             // by Value::Kind
};

}  // namespace tandem::kxo
