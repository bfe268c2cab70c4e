// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/game_record.hpp"

#include <algorithm>

#include "apps/screen/text.hpp"
#include "tandem/kxo/notation.hpp"

namespace tandem::screen {

using kxo::Outcome;
using kxo::Position;
using kxo::Rules;

namespace {

/// As a file has it.
std::string_view result_word(Outcome outcome) {
  switch (outcome) {
    case Outcome::kO:
      return "o";
    case Outcome::kX:
      return "x";
    case Outcome::kDraw:
      return "draw";
    default:
      return "open";
  }
}

/// Bytes of a control character that `text` begins with, as terminals that read UTF-8 know them.
std::size_t control_bytes(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  if ((byte(0) < ' ' && byte(0) != '\t') || byte(0) == 0x7F) return 1;
  return byte(0) == 0xC2 && text.size() > 1 && byte(1) >= 0x80 && byte(1) < 0xA0 ? 2 : 0;
}

bool has_control(std::string_view text) {
  for (; !text.empty(); text.remove_prefix(1)) {
    if (control_bytes(text) != 0) return true;
  }
  return false;
}

/// As a line of a file: with a question mark for each control character.
std::string one_line(std::string_view text) {
  std::string line;
  while (!text.empty()) {
    const std::size_t control = control_bytes(text);
    line += control != 0 ? '?' : text.front();
    text.remove_prefix(std::max<std::size_t>(control, 1));
  }
  return line;
}

std::string_view take_line(std::string_view& text) {
  const std::string_view line = text.substr(0, text.find('\n'));
  text.remove_prefix(std::min(line.size() + 1, text.size()));
  return line.ends_with('\r') ? line.substr(0, line.size() - 1) : line;
}

std::string_view take_word(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  const std::string_view word = text.substr(0, text.find_first_of(" \t"));
  text.remove_prefix(word.size());
  return word;
}

/// What is wrong with these moves after those of `game`, which they are added to.
std::string add_moves(GameRecord& game, std::string_view moves) {
  Position position = game.position();
  for (std::string_view word = take_word(moves); !word.empty(); word = take_word(moves)) {
    const auto cell = kxo::parse_cell(game.rules, word);
    if (!cell) return cell.error();
    if (game.rules.outcome(position) != Outcome::kOpen) {
      return std::string(word) + " comes after the end of the game";
    }
    if ((position.taken() & kxo::cell_bit(*cell)) != 0)
      return std::string(word) + " is taken already";
    position = position.after(*cell);
    game.moves.push_back(*cell);
  }
  return {};
}

/// What is wrong with a line of a game; empty when nothing is.
std::string add_line(std::vector<GameRecord>& games, std::string_view line) {
  const std::string_view word = take_word(line);
  const std::string_view rest = trimmed(line);
  if (word == "game") {
    auto rules = kxo::parse_game(rest);
    if (!rules) return rules.error();
    games.emplace_back();
    games.back().rules = std::move(*rules);
    return {};
  }
  if (games.empty()) return "a line 'game', such as 'game 4x4-3', has to come first";
  GameRecord& game = games.back();
  if (word == "o" || word == "x") {
    (word == "o" ? game.o : game.x) = rest;
    return {};
  }
  if (word == "moves") return add_moves(game, rest);
  if (word != "result") return "no line begins with '" + std::string(word) + "'";
  const std::string_view right = result_word(game.outcome());
  if (rest == right) return {};
  return "the result is '" + std::string(right) + "', not '" + std::string(rest) + "'";
}

}  // namespace

Position GameRecord::position(std::size_t plies) const {
  Position position;
  for (std::size_t i = 0; i < std::min(plies, moves.size()); ++i) {
    position = position.after(moves[i]);
  }
  return position;
}

std::string_view outcome_name(Outcome outcome) {
  switch (outcome) {
    case Outcome::kO:
      return "O wins";
    case Outcome::kX:
      return "X wins";
    case Outcome::kDraw:
      return "draw";
    default:
      return "open";
  }
}

std::string move_names(const Rules& rules, const std::vector<int>& moves) {
  std::string names;
  for (const int cell : moves) {
    if (!names.empty()) names += ' ';
    names += kxo::cell_name(rules, cell);
  }
  return names;
}

std::string record_text(const GameRecord& game) {
  return "\ngame " + kxo::game_name(game.rules) + "\no " + one_line(game.o) + "\nx " +
         one_line(game.x) + "\nmoves " + move_names(game.rules, game.moves) + "\nresult " +
         std::string(result_word(game.outcome())) + "\n";
}

Result<std::vector<GameRecord>, std::string> parse_games(std::string_view text) {
  if (take_line(text) != kGamesHeader.substr(0, kGamesHeader.size() - 1)) {
    return Unexpected{std::string("not a file of games: its first line is not '") +
                      std::string(kGamesHeader.substr(0, kGamesHeader.size() - 1)) + "'"};
  }
  std::vector<GameRecord> games;
  for (int number = 2; !text.empty(); ++number) {
    const std::string_view line = trimmed(take_line(text));
    if (line.empty() || line.front() == '#') continue;
    // Before any of it is shown on a terminal.
    if (has_control(line)) {
      return Unexpected{"line " + std::to_string(number) + " has a control character"};
    }
    if (const std::string wrong = add_line(games, line); !wrong.empty()) {
      return Unexpected{"line " + std::to_string(number) + ": " + wrong};
    }
  }
  return games;
}

}  // namespace tandem::screen
