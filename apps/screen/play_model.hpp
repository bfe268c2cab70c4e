// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/screen/canvas.hpp"
#include "apps/screen/game_record.hpp"
#include "tandem/kxo/rules.hpp"

namespace tandem::screen {

/// A person's games against agents: moves, undo, what is drawn, what keys and words do. Knows no
/// terminal and no agent: both come from outside. Thread safety: one thread.
class PlayModel {
 public:
  struct Setup {
    kxo::Rules rules = kxo::Rules::standard();
    kxo::Player person = kxo::Player::kO;
    std::string agent;                ///< whom the person plays against
    std::vector<std::string> agents;  ///< who comes after, when another one is asked for
    /// Says what is wrong with an agent that the person names; empty: nothing, as without this.
    std::function<std::string(const std::string& agent)> wrong_with = {};
  };
  explicit PlayModel(const Setup& setup);

  /// What somebody else has to do now. With kNewGame the game is still here, to be kept before
  /// new_game().
  enum class Wish { kNothing, kHint, kNewGame, kTakenBack, kAgent, kQuit, kUnknown };

  const kxo::Rules& rules() const { return game_.rules; }
  kxo::Player person() const { return person_; }
  const std::string& agent() const { return agent_; }
  const GameRecord& game() const { return game_; }
  kxo::Outcome outcome() const { return game_.outcome(); }
  bool is_over() const { return outcome() != kxo::Outcome::kOpen; }
  bool persons_turn() const { return !is_over() && position().to_move() == person_; }
  bool agents_turn() const { return !is_over() && !persons_turn(); }
  kxo::Position position() const { return game_.position(); }
  int last() const { return game_.moves.empty() ? -1 : game_.moves.back(); }
  const std::string& message() const { return message_; }
  void say(std::string message) { message_ = std::move(message); }

  /// A key of the screen. Letters of columns begin a move ("b2"); others are commands. An upper
  /// case letter is always a command.
  Wish on_key(int key);
  /// What to press for a command: its letter, in upper case where that names a column.
  char key_of(char letter) const;
  /// A line: a move, a word that says what a key does, or that key's letter.
  Wish on_line(std::string_view line);

  /// The person's move. What is wrong with it is said in message(). Returns: whether it was made.
  bool play(int cell);
  /// The agent's move; its turn it has to be.
  void agent_moves(int cell);
  /// `why`: what is known of the move.
  void show_hint(int cell, const std::string& why);
  void new_game();
  void set_agent(std::string agent);
  /// Takes the person's last move back, and what came after it. Returns: whether there was one.
  bool undo();

  Canvas draw(Size size, bool thinking) const;
  /// Who plays, and how it stands: a line.
  std::string status(bool thinking) const;

 private:
  bool names_column(int key) const;
  void made(int cell);
  Wish command(int letter);
  Wish typed(int key);
  void name_players();
  void move_cursor(int down, int right);
  std::string next_agent() const;

  const kxo::Player person_;
  std::string agent_;
  const std::vector<std::string> agents_;
  const std::function<std::string(const std::string&)> wrong_with_;
  GameRecord game_;
  int cursor_;
  std::string typed_;
  std::string message_;
  int won_ = 0, lost_ = 0, drawn_ = 0;
};

/// What commands there are, for pipes.
std::string_view play_words();

}  // namespace tandem::screen
