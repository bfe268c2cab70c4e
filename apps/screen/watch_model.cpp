// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/watch_model.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "apps/screen/board_view.hpp"
#include "apps/screen/keys.hpp"
#include "tandem/kxo/notation.hpp"

namespace tandem::screen {
namespace {

constexpr int kHeaderRows = 2, kFooterRows = 1;
constexpr int kInfoColumns = 15, kInfoRows = 4;
constexpr Size kGap{1, 2};
constexpr std::string_view kPaused = " DRAWING PAUSED ";

/// Keys; the first ones may be left out.
const std::vector<std::string>& help() {
  static const std::vector<std::string> kParts = {"arrows board", "o x its agents",   "+ - speed",
                                                  "PgUp PgDn",    "^P pause drawing", "^Q end"};
  return kParts;
}

std::string count(std::uint64_t n) {
  if (n < 100'000) return std::to_string(n);
  return n < 100'000'000 ? fmt::format("{}k", n / 1000) : fmt::format("{}M", n / 1'000'000);
}

}  // namespace

WatchModel::WatchModel(const kxo::Rules& rules, const std::vector<Players>& players,
                       std::vector<std::string> agents, int rate)
    : rules_(rules), agents_(std::move(agents)), rate_(rate) {
  for (const Players& two : players) {
    places_.push_back(std::make_unique<Place>());
    places_.back()->shown.players = two;
    places_.back()->open.rules = rules;
    spectators_.push_back(spectate(*places_.back()));
  }
}

/// The life of a board. A game that has ended stays to be seen until the next one's first move.
Spectator WatchModel::spectate(Place& place) {
  for (;;) {
    SeenMove move = co_await next_move();
    begin_game(place);
    put(place, move.cell);
    while (place.shown.outcome == kxo::Outcome::kOpen) {
      move = co_await next_move();
      put(place, move.cell);
    }
    end_game(place);
  }
}

void WatchModel::begin_game(Place& place) {
  place.shown.position = {};
  place.open.o = place.shown.players.o;
  place.open.x = place.shown.players.x;
}

void WatchModel::put(Place& place, int cell) {
  place.shown.position = place.shown.position.after(cell);
  place.shown.last = cell;
  place.shown.outcome = place.open.rules.outcome(place.shown.position);
  place.open.moves.push_back(cell);
}

void WatchModel::end_game(Place& place) {
  switch (place.shown.outcome) {
    case kxo::Outcome::kO:
      ++place.shown.o_wins;
      break;
    case kxo::Outcome::kX:
      ++place.shown.x_wins;
      break;
    default:
      ++place.shown.draws;
  }
  Ended ended{{place.open.o, place.open.x}, {}};
  for (const int cell : place.open.moves) ended.moves += static_cast<char>(cell);
  place.ended.push_back(std::move(ended));
  place.open.moves.clear();
}

void WatchModel::add_move(int board, int cell) {
  ++moves_;
  Place& its = place(board);
  its.shown.stuck = false;
  spectators_[static_cast<std::size_t>(board)].feed({cell});
  if (its.shown.outcome != kxo::Outcome::kOpen) ++games_;
}

void WatchModel::set_players(int board, const Players& players) {
  Place& its = place(board);
  if (its.shown.players != players) its.shown.o_wins = its.shown.x_wins = its.shown.draws = 0;
  its.shown.players = players;
  its.shown.stuck = false;
  if (its.open.moves.empty()) return;
  // Both have to do with how this game ends.
  const auto then = [](std::string& who, const std::string& next) {
    if (who != next && !who.ends_with(", " + next)) who += ", " + next;
  };
  then(its.open.o, players.o);
  then(its.open.x, players.x);
}

Size WatchModel::box() const {
  const Size board = small_board_size(rules_);
  return {std::max(board.rows, kInfoRows), board.columns + 2 + kInfoColumns};
}

Grid WatchModel::grid(Size size) const {
  return {{size.rows - kHeaderRows - kFooterRows, size.columns}, box(), kGap, boards()};
}

void WatchModel::step_rate(int by) {
  const auto* at = std::lower_bound(std::begin(kRates), std::end(kRates), rate_);
  if (by > 0 && at != std::end(kRates) && *at == rate_) ++at;
  if (by < 0 && at != std::begin(kRates)) --at;
  if (at != std::end(kRates)) rate_ = *at;
}

std::string WatchModel::after(const std::string& agent) const {
  const auto at = std::find(agents_.begin(), agents_.end(), agent);
  return at == agents_.end() || at + 1 == agents_.end() ? agents_.front() : *(at + 1);
}

void WatchModel::pause() {
  if (paused()) {
    frozen_.clear();
    return;
  }
  for (const auto& each : places_) frozen_.push_back(each->shown);
  frozen_moves_ = moves_;
}

WatchModel::Wish WatchModel::on_key(int key, Size size) {
  const Grid boxes = grid(size);
  const int page = boxes.page_of(selected_);
  switch (key) {
    case kUp:
      select(boxes.moved(selected_, -1, 0));
      break;
    case kDown:
      select(boxes.moved(selected_, 1, 0));
      break;
    case kLeft:
      select(boxes.moved(selected_, 0, -1));
      break;
    case kRight:
      select(boxes.moved(selected_, 0, 1));
      break;
    case kPageUp:
      select(boxes.begin(std::max(page - 1, 0)));
      break;
    case kPageDown:
      select(boxes.begin(std::min(page + 1, boxes.pages() - 1)));
      break;
    case kHome:
      select(0);
      break;
    case kEnd:
      select(boards() - 1);
      break;
    case 'o':
    case 'x':
      wanted_ = players(selected_);
      (key == 'o' ? wanted_.o : wanted_.x) = after(key == 'o' ? wanted_.o : wanted_.x);
      return Wish::kPlayers;
    case '+':
    case '=':
    case '-': {
      const int before = rate_;
      step_rate(key == '-' ? -1 : 1);
      return rate_ != before ? Wish::kRate : Wish::kNothing;
    }
    case ctrl('P'):
      pause();
      break;
    case ctrl('Q'):
      return Wish::kEnd;
    default:
      break;
  }
  return Wish::kNothing;
}

void WatchModel::draw_header(Canvas& canvas, const Grid& boxes, double speed) const {
  const std::string in_all = paused() ? "" : fmt::format(", {:.0f} in all", speed);
  std::vector<std::string> parts = {fmt::format("{} board{}", boards(), boards() == 1 ? "" : "s"),
                                    fmt::format("{} moves/s each{}", rate_, in_all),
                                    fmt::format("{} moves", paused() ? frozen_moves_ : moves_)};
  if (boxes.pages() > 1) {
    parts.push_back(fmt::format("page {}/{}", boxes.page_of(selected_) + 1, boxes.pages()));
  }
  std::string text = "kxo " + kxo::game_name(rules_) + "  ";
  const std::size_t taken = text.size() + (paused() ? kPaused.size() + 2 : 0);
  text += last_that_fit(parts, canvas.size().columns - static_cast<int>(taken));
  canvas.put(0, 0, text, kBold);
  if (paused()) canvas.put(0, static_cast<int>(text.size()) + 2, kPaused, kReversed);
}

void WatchModel::draw_board(Canvas& canvas, Grid::Place at, int board) const {
  const Shown& shown = paused() ? frozen_[static_cast<std::size_t>(board)] : place(board).shown;
  draw_small_board(canvas, at.row, at.column, rules_, shown.position, shown.last);
  const int column = at.column + small_board_size(rules_).columns + 2;
  const bool is_selected = board == selected_;
  std::string title = fmt::format("{}{}", is_selected ? '>' : '#', board + 1);
  if (shown.stuck) {
    title += " cannot play";
  } else if (shown.outcome != kxo::Outcome::kOpen) {
    title += fmt::format(" {}", outcome_name(shown.outcome));
  }
  canvas.put(at.row, column, title, is_selected ? kReversed : kBold);
  const auto line = [&](int row, char who, const std::string& name, std::uint64_t wins, Style ink) {
    canvas.put(at.row + row, column, std::string(1, who), ink | kBold);
    canvas.put(at.row + row, column + 2, fmt::format("{:<7.7} {:>5}", name, count(wins)));
  };
  line(1, 'O', shown.players.o, shown.o_wins, kInkO);
  line(2, 'X', shown.players.x, shown.x_wins, kInkX);
  canvas.put(at.row + 3, column, fmt::format("= draws   {:>5}", count(shown.draws)));
}

Canvas WatchModel::draw(Size size, double speed) const {
  Canvas canvas(size);
  const Size needed{box().rows + kHeaderRows + kFooterRows, box().columns};
  if (size.rows < needed.rows || size.columns < needed.columns) {
    canvas.put(0, 0, fmt::format("a board needs {} rows and", needed.rows));
    canvas.put(1, 0, fmt::format("{} columns", needed.columns));
    canvas.put(2, 0, help().back(), kDim);
    return canvas;
  }
  const Grid boxes = grid(size);
  draw_header(canvas, boxes, speed);
  const int page = boxes.page_of(selected_);
  for (int board = boxes.begin(page); board < boxes.end(page); ++board) {
    const Grid::Place at = boxes.place(board);
    draw_board(canvas, {at.row + kHeaderRows, at.column}, board);
  }
  canvas.put(size.rows - 1, 0, last_that_fit(help(), size.columns), kDim);
  return canvas;
}

std::vector<GameRecord> WatchModel::games_of(int board) const {
  const Place& its = place(board);
  std::vector<GameRecord> games;
  for (const Ended& ended : its.ended) {
    games.push_back({rules_, ended.players.o, ended.players.x, {}});
    games.back().moves.assign(ended.moves.begin(), ended.moves.end());
  }
  if (!its.open.moves.empty()) games.push_back(its.open);
  return games;
}

std::string WatchModel::history() const {
  std::string text;
  for (int board = 0; board < boards(); ++board) {
    int number = 0;
    for (const GameRecord& game : games_of(board)) {
      text += fmt::format("board {} game {}: {} - {}: {}: {}\n", board + 1, ++number, game.o,
                          game.x, outcome_name(game.outcome()), move_names(rules_, game.moves));
    }
  }
  return text;
}

}  // namespace tandem::screen
