// SPDX-License-Identifier: Apache-2.0
/// Games, cells and positions as people write them.
///
/// A game is WIDTHxHEIGHT-GOAL: "4x4-3". A cell is its column's letter and its row's number, from
/// the top left: "a1" is cell 0, "b2" cell width + 1; column 27 is "aa". A position is its rows
/// from the top, 'o', 'x' or '.' for each cell, with a '/' between them: "o../.x./...".
#pragma once

#include <string>
#include <string_view>

#include "tandem/base/result.hpp"
#include "tandem/kxo/rules.hpp"

namespace tandem::kxo {

std::string game_name(const Rules& rules);
/// Errors: a sentence about a text that names no game.
Result<Rules, std::string> parse_game(std::string_view text);

/// `cell` is one of the board.
std::string cell_name(const Rules& rules, int cell);
/// All of `cells`, with a space between them.
std::string cell_names(const Rules& rules, Cells cells);
/// Upper case is as good. Errors: a sentence about a text that names no cell of this board.
Result<int, std::string> parse_cell(const Rules& rules, std::string_view text);

std::string position_name(const Rules& rules, const Position& position);
/// A position, or the moves that lead to it from the empty board, with spaces or commas between
/// them: "b2 c3". No text is the empty board.
/// Errors: a sentence about what is no position, or no move in one; or about stones that no game
///         leaves: too many of a player, rows of both, moves after a row.
Result<Position, std::string> parse_position(const Rules& rules, std::string_view text);

}  // namespace tandem::kxo
