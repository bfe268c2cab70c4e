// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/notation.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <optional>

#include "tandem/kxo/detail/text.hpp"

namespace tandem::kxo {
namespace {

constexpr int kLetters = 26;

using detail::quoted;

/// The digits that `text` begins with, which are taken off it. Nothing when there are none, or it
/// is no number that any of this could mean.
std::optional<int> take_number(std::string_view& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0 || text.front() == '-') return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

bool take(std::string_view& text, char wanted) {
  if (text.empty() || text.front() != wanted) return false;
  text.remove_prefix(1);
  return true;
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

/// Whether a row of `stones` was completed by its last one: without one of them there is none.
bool ends_with_row(const Rules& rules, Cells stones) {
  for (Cells rest = stones; rest != 0; rest &= rest - 1) {
    if (!rules.has_row(stones & ~(rest & -rest))) return true;
  }
  return false;
}

/// Why no game leads to `position`; empty when one does.
std::string impossible(const Rules& rules, const Position& position) {
  const int o = std::popcount(position.o), x = std::popcount(position.x);
  if (o != x && o != x + 1) {
    return "O has put " + std::to_string(o) + " and X " + std::to_string(x) +
           ", but O begins and they take turns";
  }
  const Player last = opponent(position.to_move());
  if (rules.has_row(position.of(opponent(last)))) {
    return std::string("the game was over before ") + (last == Player::kO ? "O" : "X") + " moved";
  }
  if (rules.has_row(position.of(last)) && !ends_with_row(rules, position.of(last))) {
    return "no last move completes all these rows";
  }
  return {};
}

Result<Position, std::string> parse_board(const Rules& rules, std::string_view text) {
  Position position;
  int cell = 0, column = 0;
  for (const char c : text) {
    const bool row_ends = column == rules.width();
    if ((c == '/') != row_ends || cell == rules.cells()) {
      return Unexpected{quoted(text) + " is not " + std::to_string(rules.height()) + " rows of " +
                        std::to_string(rules.width()) + " cells"};
    }
    if (c == '/') {
      column = 0;
      continue;
    }
    if (lower(c) == 'o') position.o |= cell_bit(cell);
    if (lower(c) == 'x') position.x |= cell_bit(cell);
    ++cell;
    ++column;
  }
  if (cell != rules.cells()) {
    return Unexpected{quoted(text) + " has " + std::to_string(cell) + " cells, not " +
                      std::to_string(rules.cells())};
  }
  if (const std::string why = impossible(rules, position); !why.empty()) {
    return Unexpected{quoted(text) + ": " + why};
  }
  return position;
}

}  // namespace

std::string game_name(const Rules& rules) {
  return std::to_string(rules.width()) + "x" + std::to_string(rules.height()) + "-" +
         std::to_string(rules.goal());
}

Result<Rules, std::string> parse_game(std::string_view text) {
  std::string_view rest = text;
  const auto width = take_number(rest);
  const bool by = take(rest, 'x');
  const auto height = take_number(rest);
  const bool dash = take(rest, '-');
  const auto goal = take_number(rest);
  if (!width || !by || !height || !dash || !goal || !rest.empty()) {
    return Unexpected{quoted(text) + " is no game: write WIDTHxHEIGHT-GOAL, such as 4x4-3"};
  }
  const auto rules = Rules::make(*width, *height, *goal);
  if (!rules) {
    return Unexpected{quoted(text) + " is no game: a board has 1 to " +
                      std::to_string(Rules::kMostCells) +
                      " cells, and the goal fits in its longer side"};
  }
  return *rules;
}

std::string cell_name(const Rules& rules, int cell) {
  const int column = cell % rules.width();
  std::string name;
  if (column >= kLetters) name += static_cast<char>('a' + column / kLetters - 1);
  name += static_cast<char>('a' + column % kLetters);
  return name + std::to_string(cell / rules.width() + 1);
}

std::string cell_names(const Rules& rules, Cells cells) {
  std::string names;
  for (; cells != 0; cells &= cells - 1) {
    if (!names.empty()) names += ' ';
    names += cell_name(rules, std::countr_zero(cells));
  }
  return names;
}

Result<int, std::string> parse_cell(const Rules& rules, std::string_view text) {
  std::string_view rest = text;
  int column = 0, letters = 0;
  for (; !rest.empty() && lower(rest.front()) >= 'a' && lower(rest.front()) <= 'z' && letters < 3;
       ++letters) {
    column = column * kLetters + lower(rest.front()) - 'a' + 1;
    rest.remove_prefix(1);
  }
  const auto row = take_number(rest);
  if (letters == 0 || !row || !rest.empty()) {
    return Unexpected{quoted(text) + " is no cell: write its column and row, such as b2"};
  }
  if (column > rules.width() || *row < 1 || *row > rules.height()) {
    return Unexpected{quoted(text) + " is not on the board, whose cells are a1 to " +
                      cell_name(rules, rules.cells() - 1)};
  }
  return (*row - 1) * rules.width() + column - 1;
}

std::string position_name(const Rules& rules, const Position& position) {
  std::string name;
  for (int cell = 0; cell < rules.cells(); ++cell) {
    if (cell != 0 && cell % rules.width() == 0) name += '/';
    name += (position.o & cell_bit(cell)) != 0   ? 'o'
            : (position.x & cell_bit(cell)) != 0 ? 'x'
                                                 : '.';
  }
  return name;
}

Result<Position, std::string> parse_position(const Rules& rules, std::string_view text) {
  constexpr std::string_view kBetween = " ,\t\n";
  const std::size_t last = text.find_last_not_of(kBetween);
  if (last == std::string_view::npos) return Position{};
  text = text.substr(0, last + 1);
  text.remove_prefix(text.find_first_not_of(kBetween));
  if (text.find_first_not_of("oxOX./") == std::string_view::npos) return parse_board(rules, text);
  Position position;
  while (!text.empty()) {
    const std::string_view move = text.substr(0, text.find_first_of(kBetween));
    const auto cell = parse_cell(rules, move);
    if (!cell) return Unexpected{cell.error()};
    if (rules.outcome(position) != Outcome::kOpen) {
      return Unexpected{quoted(move) + " comes after the end of the game"};
    }
    if ((rules.free(position) & cell_bit(*cell)) == 0) {
      return Unexpected{quoted(move) + " is taken already"};
    }
    position = position.after(*cell);
    text.remove_prefix(move.size());
    text.remove_prefix(std::min(text.find_first_not_of(kBetween), text.size()));
  }
  return position;
}

}  // namespace tandem::kxo
