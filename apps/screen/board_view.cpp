// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/board_view.hpp"

#include <fmt/format.h>

#include "tandem/kxo/notation.hpp"

namespace tandem::screen {
namespace {

constexpr int kRowNames = 3;  // columns for the rows' numbers and a space

Style stone_style(char stone, bool is_last) {
  const Style ink = stone == 'O' ? kInkO : stone == 'X' ? kInkX : kDim;
  return is_last ? ink | kBold | kUnderlined : ink;
}

std::string column_name(const kxo::Rules& rules, int column) {
  const std::string name = kxo::cell_name(rules, column);
  return name.substr(0, name.find_first_of("0123456789"));
}

/// Columns of a cell, and rows.
Size cell_size(bool wide) { return wide ? Size{2, 4} : Size{1, 3}; }

}  // namespace

char stone_at(const kxo::Position& position, int cell) {
  if ((position.o & kxo::cell_bit(cell)) != 0) return 'O';
  return (position.x & kxo::cell_bit(cell)) != 0 ? 'X' : '.';
}

Size small_board_size(const kxo::Rules& rules) { return {rules.height(), 2 * rules.width() - 1}; }

void draw_small_board(Canvas& canvas, int row, int column, const kxo::Rules& rules,
                      const kxo::Position& position, int last) {
  for (int cell = 0; cell < rules.cells(); ++cell) {
    const char stone = stone_at(position, cell);
    canvas.put(row + cell / rules.width(), column + 2 * (cell % rules.width()),
               std::string(1, stone), stone_style(stone, cell == last));
  }
}

Size large_board_size(const kxo::Rules& rules, bool wide) {
  const Size cell = cell_size(wide);
  return {rules.height() * cell.rows + 1 + (wide ? 1 : 0),
          kRowNames + rules.width() * cell.columns + 1};
}

void draw_large_board(Canvas& canvas, int row, int column, const kxo::Rules& rules,
                      const kxo::Position& position, int last, int cursor, bool wide) {
  const Size cell = cell_size(wide);
  std::string line;
  for (int i = 0; i < rules.width(); ++i) line += "+---";
  for (int i = 0; i < rules.width(); ++i) {
    canvas.put(row, column + kRowNames + i * cell.columns + (wide ? 2 : 1), column_name(rules, i));
  }
  for (int i = 0; i < rules.height(); ++i) {
    const int at = row + 1 + i * cell.rows + (wide ? 1 : 0);
    canvas.put(at, column, fmt::format("{:>2}", i + 1));
    if (!wide) continue;
    canvas.put(at - 1, column + kRowNames, line + "+", kDim);
    for (int j = 0; j <= rules.width(); ++j) {
      canvas.put(at, column + kRowNames + j * cell.columns, "|", kDim);
    }
  }
  if (wide)
    canvas.put(row + large_board_size(rules, wide).rows - 1, column + kRowNames, line + "+", kDim);
  for (int i = 0; i < rules.cells(); ++i) {
    const int y = row + 1 + i / rules.width() * cell.rows + (wide ? 1 : 0);
    const int x = column + kRowNames + i % rules.width() * cell.columns + (wide ? 2 : 1);
    const char stone = stone_at(position, i);
    const bool is_free = stone == '.';
    if (i == cursor) {
      canvas.put(y, x - 1, "[ ]", kBold | kReversed);
      canvas.put(y, x, std::string(1, is_free ? ' ' : stone), kBold | kReversed);
    } else if (!is_free || !wide) {
      canvas.put(y, x, std::string(1, stone), stone_style(stone, i == last));
    }
  }
}

std::string board_text(const kxo::Rules& rules, const kxo::Position& position, int last) {
  std::string text = "   ";
  for (int i = 0; i < rules.width(); ++i) text += fmt::format("{:^3}", column_name(rules, i));
  text.erase(text.find_last_not_of(' ') + 1);
  for (int cell = 0; cell < rules.cells(); ++cell) {
    if (cell % rules.width() == 0) {
      text.erase(text.find_last_not_of(' ') + 1);
      text += fmt::format("\n{:>2} ", cell / rules.width() + 1);
    }
    text +=
        std::string{cell == last ? '[' : ' ', stone_at(position, cell), cell == last ? ']' : ' '};
  }
  text.erase(text.find_last_not_of(' ') + 1);
  return text + "\n";
}

}  // namespace tandem::screen
