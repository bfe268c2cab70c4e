// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/referee.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::cli {

char Referee::at(int row, int column) const {
  if (row < 0 || row >= height_ || column < 0 || column >= width_) return ' ';
  return squares_[index(row, column)];
}

/// From every square into every direction.
bool Referee::has_row(char who) const {
  constexpr int kDirections[][2] = {{0, 1}, {1, 0}, {1, 1}, {1, -1}};
  for (int row = 0; row < height_; ++row) {
    for (int column = 0; column < width_; ++column) {
      for (const auto& [down, right] : kDirections) {
        int length = 0;
        while (length < goal_ && at(row + length * down, column + length * right) == who) ++length;
        if (length == goal_) return true;
      }
    }
  }
  return false;
}

std::string Referee::check(const wd::kxo::Move& move) {
  const char who = stones_ % 2 == 0 ? 'O' : 'X';
  const auto wrong = [&](const std::string& what) {
    return fmt::format("move {} ({} to cell {}): {}", move.number, move.x ? 'X' : 'O', move.cell,
                       what);
  };
  if (move.number != moves_) return wrong(fmt::format("it should be move {}", moves_));
  if ((move.x ? 'X' : 'O') != who) return wrong(fmt::format("it was the turn of {}", who));
  if (move.cell < 0 || move.cell >= width_ * height_) return wrong("there is no such cell");
  char& square = squares_[static_cast<std::size_t>(move.cell)];
  if (square != '.') return wrong(fmt::format("the cell is taken by {}", square));
  square = who;
  ++stones_;
  ++moves_;
  const bool won = has_row(who);
  const bool draw = !won && stones_ == width_ * height_;
  if (move.over != (won || draw) || move.draw != draw) {
    return wrong(fmt::format("the game {}, the device says that it {}",
                             won    ? "is won"
                             : draw ? "is a draw"
                                    : "goes on",
                             move.draw   ? "is a draw"
                             : move.over ? "is won"
                                         : "goes on"));
  }
  if (won || draw) {
    std::fill(squares_.begin(), squares_.end(), '.');
    stones_ = 0;
  }
  return {};
}

}  // namespace tandem::cli
