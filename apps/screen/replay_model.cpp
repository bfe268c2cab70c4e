// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/replay_model.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "apps/screen/board_view.hpp"
#include "apps/screen/keys.hpp"
#include "tandem/kxo/notation.hpp"

namespace tandem::screen {

bool ReplayModel::on_key(int key) {
  const std::size_t plies = games_[game_].moves.size();
  switch (key) {
    case kRight:
    case ' ':
      ply_ = std::min(ply_ + 1, plies);
      break;
    case kLeft:
    case kBackspace:
      ply_ -= ply_ > 0 ? 1 : 0;
      break;
    case kHome:
      ply_ = 0;
      break;
    case kEnd:
      ply_ = plies;
      break;
    case kDown:
    case kPageDown:
      if (game_ + 1 < games_.size()) {
        ++game_;
        ply_ = 0;
      }
      break;
    case kUp:
    case kPageUp:
      if (game_ > 0) {
        --game_;
        ply_ = 0;
      }
      break;
    case 'q':
    case ctrl('Q'):
      return false;
    default:
      break;
  }
  return true;
}

Canvas ReplayModel::draw(Size size) const {
  Canvas canvas(size);
  const GameRecord& game = games_[game_];
  const bool wide = large_board_size(game.rules, true).rows + 6 <= size.rows &&
                    large_board_size(game.rules, true).columns <= size.columns;
  const Size board = large_board_size(game.rules, wide);
  if (board.rows + 6 > size.rows || board.columns > size.columns) {
    canvas.put(0, 0, fmt::format("this game needs {} rows", board.rows + 6));
    canvas.put(1, 0, fmt::format("and {} columns", board.columns));
    canvas.put(2, 0, "^Q end", kDim);
    return canvas;
  }
  canvas.put(
      0, 0,
      fmt::format("kxo {}   game {} of {}", kxo::game_name(game.rules), game_ + 1, games_.size()),
      kBold);
  canvas.put(1, 0, fmt::format("O {}   X {}", game.o, game.x));
  const int last = ply_ == 0 ? -1 : game.moves[ply_ - 1];
  draw_large_board(canvas, 2, 0, game.rules, game.position(ply_), last, -1, wide);
  const bool at_end = ply_ == game.moves.size();
  std::string where = fmt::format("move {} of {}", ply_, game.moves.size());
  if (last >= 0) {
    where += fmt::format(": {} {}", ply_ % 2 == 1 ? 'O' : 'X', kxo::cell_name(game.rules, last));
  }
  if (at_end) where += fmt::format("; {}", outcome_name(game.outcome()));
  const int row = std::min(2 + board.rows + 1, size.rows - 3);
  canvas.put(row, 0, where, kBold);
  canvas.put(row + 1, 0,
             last_that_fit({"Home End", "left right move", "up down game", "^Q end"}, size.columns),
             kDim);
  const std::string moves = move_names(game.rules, game.moves);
  canvas.put(row + 2, 0, "moves: " + moves);
  return canvas;
}

}  // namespace tandem::screen
