// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/play_model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "apps/screen/board_view.hpp"
#include "apps/screen/keys.hpp"
#include "apps/screen/text.hpp"
#include "tandem/kxo/notation.hpp"

namespace tandem::screen {
namespace {

constexpr std::string_view kHowToPlay[] = {"arrows Enter  play", "b2  play there"};
/// What letters do; and the same where there is no room beside the board.
constexpr struct {
  char letter;
  std::string_view does, short_form;
} kCommands[] = {{'h', "hint", "hint"},
                 {'u', "undo", "undo"},
                 {'n', "new game", "new"},
                 {'t', "other opponent", "other"}};
constexpr std::string_view kHowToEnd = "^Q end";
constexpr int kInfoColumns = 24, kTop = 2, kBottom = 3;  // columns and rows around the board

char stone_of(kxo::Player player) { return player == kxo::Player::kO ? 'O' : 'X'; }

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

}  // namespace

std::string_view play_words() {
  return "a cell such as b2, hint, undo, new, against AGENT, help, quit";
}

PlayModel::PlayModel(const Setup& setup)
    : person_(setup.person),
      agent_(setup.agent),
      agents_(setup.agents),
      wrong_with_(setup.wrong_with),
      cursor_(setup.rules.height() / 2 * setup.rules.width() + setup.rules.width() / 2) {
  game_.rules = setup.rules;
  name_players();
}

void PlayModel::name_players() {
  game_.o = person_ == kxo::Player::kO ? "you" : agent_;
  game_.x = person_ == kxo::Player::kX ? "you" : agent_;
}

bool PlayModel::names_column(int key) const {
  return key >= 'a' && key < 'a' + std::min(rules().width(), 26);
}

char PlayModel::key_of(char letter) const {
  return names_column(letter) ? static_cast<char>(letter - 'a' + 'A') : letter;
}

void PlayModel::made(int cell) {
  game_.moves.push_back(cell);
  message_.clear();
  if (!is_over()) return;
  if (outcome() == kxo::Outcome::kDraw) {
    ++drawn_;
    message_ = "a draw";
  } else {
    const bool won = (outcome() == kxo::Outcome::kO) == (person_ == kxo::Player::kO);
    ++(won ? won_ : lost_);
    message_ = fmt::format("{}: you {}", outcome_name(outcome()), won ? "won" : "lost");
  }
  message_ += fmt::format("; {}: new game", key_of('n'));
}

bool PlayModel::play(int cell) {
  const std::string name = kxo::cell_name(rules(), cell);
  if (is_over()) {
    message_ = fmt::format("the game is over; {}: new game", key_of('n'));
  } else if (!persons_turn()) {
    message_ = fmt::format("it is the turn of {}", agent_);
  } else if ((kxo::cell_bit(cell) & position().taken()) != 0) {
    message_ = fmt::format("{} is taken by {}", name, stone_at(position(), cell));
  } else {
    made(cell);
    return true;
  }
  return false;
}

void PlayModel::agent_moves(int cell) {
  made(cell);
  if (!is_over()) message_ = fmt::format("{} played {}", agent_, kxo::cell_name(rules(), cell));
}

void PlayModel::show_hint(int cell, const std::string& why) {
  cursor_ = cell;
  message_ =
      fmt::format("hint: {}{}", kxo::cell_name(rules(), cell), why.empty() ? "" : ", " + why);
}

void PlayModel::new_game() {
  game_.moves.clear();
  name_players();
  typed_.clear();
  message_ = "new game";
}

void PlayModel::set_agent(std::string agent) {
  if (agent == agent_) return;
  agent_ = std::move(agent);
  std::string& who = person_ == kxo::Player::kO ? game_.x : game_.o;
  if (game_.moves.empty()) {
    name_players();
  } else if (!is_over()) {
    who += "; " + agent_;
  }
  message_ = fmt::format("you play against {}", agent_);
}

bool PlayModel::undo() {
  // The person's moves are those of one parity.
  auto plies = static_cast<int>(game_.moves.size());
  const int first = person_ == kxo::Player::kO ? 0 : 1;
  if (plies <= first) {
    message_ = "you have no move to take back";
    return false;
  }
  if (outcome() == kxo::Outcome::kDraw) {
    --drawn_;
  } else if (is_over()) {
    --((outcome() == kxo::Outcome::kO) == (person_ == kxo::Player::kO) ? won_ : lost_);
  }
  do --plies;
  while (plies % 2 != first);
  game_.moves.resize(static_cast<std::size_t>(plies));
  message_ = "taken back";
  return true;
}

void PlayModel::move_cursor(int down, int right) {
  const int row = cursor_ / rules().width(), column = cursor_ % rules().width();
  cursor_ = std::clamp(row + down, 0, rules().height() - 1) * rules().width() +
            std::clamp(column + right, 0, rules().width() - 1);
}

std::string PlayModel::next_agent() const {
  const auto at = std::find(agents_.begin(), agents_.end(), agent_);
  return at == agents_.end() || at + 1 == agents_.end() ? agents_.front() : *(at + 1);
}

PlayModel::Wish PlayModel::command(int letter) {
  switch (letter) {
    case 'h':
    case '?':
      if (persons_turn()) return Wish::kHint;
      message_ = is_over() ? fmt::format("the game is over; {}: new game", key_of('n'))
                           : "it is not your turn";
      return Wish::kNothing;
    case 'u':
      return undo() ? Wish::kTakenBack : Wish::kNothing;
    case 'n':
      return Wish::kNewGame;
    case 't':
      if (agents_.empty()) return Wish::kNothing;
      set_agent(next_agent());
      return Wish::kAgent;
    case 'q':
      return Wish::kQuit;
    default:
      return Wish::kUnknown;
  }
}

/// A move as it is typed: letters, then digits; it is played when no digit more can follow.
PlayModel::Wish PlayModel::typed(int key) {
  typed_ += static_cast<char>(key);
  const bool digit = key >= '0' && key <= '9';
  if (!digit) return Wish::kNothing;
  const auto cell = kxo::parse_cell(rules(), typed_);
  // "b1" may become "b12".
  if (cell && kxo::parse_cell(rules(), typed_ + "0")) return Wish::kNothing;
  if (!cell) {
    message_ = cell.error();
  } else {
    cursor_ = *cell;
    (void)play(*cell);
  }
  typed_.clear();
  return Wish::kNothing;
}

PlayModel::Wish PlayModel::on_key(int key) {
  const bool digit = key >= '0' && key <= '9';
  const bool column = names_column(key);
  if ((digit && !typed_.empty()) || column) {
    if (column && !typed_.empty() && rules().width() <= 26) typed_.clear();
    return typed(key);
  }
  if (key == kEnter && !typed_.empty()) {
    const auto cell = kxo::parse_cell(rules(), std::exchange(typed_, {}));
    if (!cell) {
      message_ = cell.error();
    } else {
      (void)play(*cell);
    }
    return Wish::kNothing;
  }
  typed_.clear();
  switch (key) {
    case kUp:
      move_cursor(-1, 0);
      break;
    case kDown:
      move_cursor(1, 0);
      break;
    case kLeft:
      move_cursor(0, -1);
      break;
    case kRight:
      move_cursor(0, 1);
      break;
    case kEnter:
    case ' ':
      (void)play(cursor_);
      break;
    case ctrl('Q'):
      return Wish::kQuit;
    default:
      if (key > ' ' && key < 127) return command(std::tolower(key));
  }
  return Wish::kNothing;
}

PlayModel::Wish PlayModel::on_line(std::string_view line) {
  const std::string text = lower(trimmed(line));
  if (text.empty() || text.front() == '#') return Wish::kNothing;
  constexpr std::string_view kAgainst = "against ";
  if (text.starts_with(kAgainst)) {
    std::string agent(trimmed(trimmed(line).substr(kAgainst.size())));
    if (std::string wrong = wrong_with_ ? wrong_with_(agent) : ""; !wrong.empty()) {
      message_ = std::move(wrong);
      return Wish::kUnknown;
    }
    set_agent(std::move(agent));
    return Wish::kAgent;
  }
  for (const std::string_view word : {"hint", "undo", "new", "quit"}) {
    if (text == word) return command(word.front());
  }
  if (text.size() == 1) {  // a key, which messages name; no cell is that short
    if (const Wish wish = command(text.front()); wish != Wish::kUnknown) return wish;
  }
  if (text == "help") {
    message_ = play_words();
    return Wish::kNothing;
  }
  const auto cell = kxo::parse_cell(rules(), text);
  if (!cell) {
    message_ = fmt::format("{}; there are: {}", cell.error(), play_words());
    return Wish::kUnknown;
  }
  return play(*cell) ? Wish::kNothing : Wish::kUnknown;
}

std::string PlayModel::status(bool thinking) const {
  if (thinking) return fmt::format("{} thinks", agent_);
  if (is_over()) return fmt::format("{}: {}", kxo::game_name(rules()), outcome_name(outcome()));
  return persons_turn() ? fmt::format("your turn, {}", stone_of(person_))
                        : fmt::format("the turn of {}", agent_);
}

Canvas PlayModel::draw(Size size, bool thinking) const {
  Canvas canvas(size);
  const Size wide = large_board_size(rules(), true), narrow = large_board_size(rules(), false);
  const int rows = size.rows - kTop - kBottom;
  const bool is_wide = wide.rows <= rows && wide.columns + kInfoColumns <= size.columns;
  const Size board = is_wide ? wide : narrow;
  if (board.rows > rows || board.columns > size.columns) {
    canvas.put(0, 0, fmt::format("the board needs {} rows", narrow.rows + kTop + kBottom));
    canvas.put(1, 0, fmt::format("and {} columns", narrow.columns));
    canvas.put(2, 0, kHowToEnd, kDim);
    return canvas;
  }
  canvas.put(0, 0,
             fmt::format("kxo {}   you ({}) against {}   won {}, lost {}, drawn {}",
                         kxo::game_name(rules()), stone_of(person_), agent_, won_, lost_, drawn_),
             kBold);
  draw_large_board(canvas, kTop, 0, rules(), position(), last(), cursor_, is_wide);
  int below = kTop + board.rows + 1;
  if (board.columns + kInfoColumns <= size.columns) {
    int row = kTop + 1;
    const auto put = [&](std::string_view line) {
      canvas.put(row++, board.columns + 4, line, kDim);
    };
    for (const std::string_view line : kHowToPlay) put(line);
    for (const auto& [letter, does, _] : kCommands)
      put(fmt::format("{}  {}", key_of(letter), does));
    put("^Q  end");
    below = std::max(below, row + 1);
  } else {
    std::vector<std::string> parts;
    for (const auto& [letter, _, does] : kCommands) {
      parts.push_back(fmt::format("{} {}", key_of(letter), does));
    }
    parts.emplace_back(kHowToEnd);
    canvas.put(1, 0, last_that_fit(parts, size.columns), kDim);
  }
  const int row = std::min(below, size.rows - kBottom);
  canvas.put(row, 0, status(thinking), kBold);
  canvas.put(row + 1, 0, typed_.empty() ? message_ : "> " + typed_ + "_");
  const std::string moves = move_names(rules(), game_.moves);
  const auto room = static_cast<std::size_t>(std::max(size.columns - 7, 0));
  canvas.put(row + 2, 0,
             "moves: " + (moves.size() > room ? moves.substr(moves.size() - room) : moves));
  return canvas;
}

}  // namespace tandem::screen
