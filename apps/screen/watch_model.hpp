// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "apps/screen/canvas.hpp"
#include "apps/screen/game_record.hpp"
#include "apps/screen/grid.hpp"
#include "apps/screen/spectator.hpp"
#include "tandem/kxo/rules.hpp"

namespace tandem::screen {

/// Many boards on one screen: their games so far, what is drawn, what keys do. Knows no terminal
/// and no device. Thread safety: one thread.
class WatchModel {
 public:
  struct Players {
    std::string o, x;

    friend bool operator==(const Players&, const Players&) = default;
  };
  /// Moves per second and board that can be chosen.
  static constexpr int kRates[] = {1, 2, 5, 10, 20, 50, 100};

  /// A board for each of `players`. `agents`: who can be put in their place.
  WatchModel(const kxo::Rules& rules, const std::vector<Players>& players,
             std::vector<std::string> agents, int rate);

  int boards() const { return static_cast<int>(places_.size()); }
  int rate() const { return rate_; }
  const Players& players(int board) const { return place(board).shown.players; }

  /// The next move of a board, in the order in which they were made.
  void add_move(int board, int cell);
  /// Where that changes anything, what these two won is counted from 0.
  void set_players(int board, const Players& players);
  /// Its agents do not move any more: they cannot play this game.
  void set_stuck(int board) { place(board).shown.stuck = true; }
  /// Over all boards.
  std::uint64_t moves() const { return moves_; }
  std::uint64_t games() const { return games_; }

  enum class Wish { kNothing, kEnd, kPlayers, kRate };
  /// Returns: what somebody else has to do now: give the selected board wanted_players(), or all
  ///          boards rate().
  Wish on_key(int key, Size size);
  int selected() const { return selected_; }
  const Players& wanted_players() const { return wanted_; }
  /// Whether what is drawn stays as it was. Moves go on.
  bool paused() const { return !frozen_.empty(); }

  /// `speed`: moves per second of all boards.
  Canvas draw(Size size, double speed) const;

  /// The moves of a board's game that is not over.
  const std::vector<int>& open_moves(int board) const { return place(board).open.moves; }
  /// All games of a board, an open one last.
  std::vector<GameRecord> games_of(int board) const;
  /// A line for each game of each board.
  std::string history() const;

 private:
  /// What the screen tells of a board.
  struct Shown {
    Players players;
    kxo::Position position;
    int last = -1;
    kxo::Outcome outcome = kxo::Outcome::kOpen;
    std::uint64_t o_wins = 0, x_wins = 0, draws = 0;
    bool stuck = false;
  };
  /// Compact: there are many.
  struct Ended {
    Players players;
    std::string moves;  // cells as characters
  };
  struct Place {
    Shown shown;
    GameRecord open;
    std::vector<Ended> ended;
  };

  static Spectator spectate(Place& place);
  static void begin_game(Place& place);
  static void put(Place& place, int cell);
  static void end_game(Place& place);

  Place& place(int board) { return *places_[static_cast<std::size_t>(board)]; }
  const Place& place(int board) const { return *places_[static_cast<std::size_t>(board)]; }
  Size box() const;
  Grid grid(Size size) const;
  void select(int board) { selected_ = board; }
  void step_rate(int by);
  std::string after(const std::string& agent) const;
  void pause();
  void draw_board(Canvas& canvas, Grid::Place at, int board) const;
  void draw_header(Canvas& canvas, const Grid& grid, double speed) const;

  const kxo::Rules rules_;
  std::vector<std::unique_ptr<Place>> places_;
  std::vector<Spectator> spectators_;
  const std::vector<std::string> agents_;
  int rate_;
  int selected_ = 0;
  Players wanted_;
  std::uint64_t moves_ = 0, games_ = 0;
  std::vector<Shown> frozen_;  // while paused
  std::uint64_t frozen_moves_ = 0;
};

}  // namespace tandem::screen
