// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "apps/screen/canvas.hpp"
#include "apps/screen/game_record.hpp"

namespace tandem::screen {

/// Games that were kept, a move at a time. Thread safety: one thread.
class ReplayModel {
 public:
  /// There has to be a game.
  explicit ReplayModel(std::vector<GameRecord> games) : games_(std::move(games)) {}

  /// Left and right: a move back, a move on; Home, End: the game's; up and down: another game.
  /// Returns: whether it goes on.
  bool on_key(int key);
  std::size_t game() const { return game_; }
  std::size_t ply() const { return ply_; }

  Canvas draw(Size size) const;

 private:
  std::vector<GameRecord> games_;
  std::size_t game_ = 0, ply_ = 0;
};

}  // namespace tandem::screen
