// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tandem/wd/kxo.hpp"

namespace tandem::cli {

/// The rules of kxo once more, written from the game's definition, a square at a time: checks what
/// a device says of one board. Shares nothing with tandem/kxo, which the device plays by.
class Referee {
 public:
  Referee(int width, int height, int goal)
      : width_(width), height_(height), goal_(goal), squares_(count(), '.') {}

  /// What is wrong with the board's next move; empty when nothing is. A move that ends its game is
  /// followed by an empty board.
  std::string check(const wd::kxo::Move& move);
  /// Moves that were right so far, over all games.
  std::uint32_t moves() const { return moves_; }
  /// Stones of the game that is being played.
  int stones() const { return stones_; }
  /// 'O', 'X' or '.'; by row * width + column.
  const std::vector<char>& squares() const { return squares_; }

 private:
  std::size_t count() const {
    return static_cast<std::size_t>(width_) * static_cast<std::size_t>(height_);
  }
  std::size_t index(int row, int column) const {
    return static_cast<std::size_t>(row) * static_cast<std::size_t>(width_) +
           static_cast<std::size_t>(column);
  }
  char at(int row, int column) const;
  bool has_row(char who) const;

  int width_, height_, goal_;
  std::vector<char> squares_;
  int stones_ = 0;
  std::uint32_t moves_ = 0;
};

}  // namespace tandem::cli
