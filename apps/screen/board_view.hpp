// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "apps/screen/canvas.hpp"
#include "tandem/kxo/rules.hpp"

namespace tandem::screen {

/// 'O', 'X', or '.' for a free cell.
char stone_at(const kxo::Position& position, int cell);

/// A board of which many fit on a screen: a character a cell, a space between them. The last move
/// (-1: none) is bold and underlined.
Size small_board_size(const kxo::Rules& rules);
void draw_small_board(Canvas& canvas, int row, int column, const kxo::Rules& rules,
                      const kxo::Position& position, int last);

/// A board to play on, with the names of columns and rows; with lines between the cells where
/// `wide`. The cell `cursor` (-1: none) stands in brackets.
Size large_board_size(const kxo::Rules& rules, bool wide);
void draw_large_board(Canvas& canvas, int row, int column, const kxo::Rules& rules,
                      const kxo::Position& position, int last, int cursor, bool wide);

/// The same as text, for pipes. `last` stands in brackets.
std::string board_text(const kxo::Rules& rules, const kxo::Position& position, int last);

}  // namespace tandem::screen
