// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "tandem/kxo/agent.hpp"
#include "tandem/kxo/random.hpp"
#include "tandem/kxo/value_model.hpp"

namespace tandem::kxo {

/// How a model learns from games against itself.
struct Learning {
  enum class Method : std::uint8_t {
    /// TD(lambda): a position is worth what the rest of the game, as it was played, says.
    kTd,
    /// Q-learning: a move is worth what the best answer to it leaves, played or not. The value of
    /// a move is that of the position after it.
    kQ,
  };
  Method method = Method::kTd;
  double lambda = 0.5;  ///< of TD: from 0, the next position alone, to 1, the game's end
  double rate = 0.5;    ///< of learning, at first
  /// Units: games until the rate is half of that; after twice as many it is a third, and so on. 0:
  ///        it stays.
  std::uint64_t halved_after = 0;
  double exploration = 0.3;  ///< the share of random moves
  double discount = 0.98;    ///< for each ply: wins that come sooner are worth more
  int random_plies = 8;      ///< games begin with up to so many random moves

  double rate_at(std::uint64_t game) const noexcept;
  /// What suits `method` and a kind of model.
  static Learning of(Method method, ValueModel::Kind kind);

  friend bool operator==(const Learning&, const Learning&) = default;
};

/// The cells that promise most, by `model`, to whoever moves: those that win at once or, where none
/// does, those after which the position is worth most. `position` is of an open game.
struct Choice {
  Cells cells = 0;
  float value = 0;  ///< to who moves
};
Choice best_moves(const ValueModel& model, const Position& position) noexcept;

/// One of best_moves(), each as likely. Returns the cell.
int greedy_move(const ValueModel& model, const Position& position, Random& random) noexcept;
/// Who plays by `model`.
std::unique_ptr<Agent> greedy_agent(std::shared_ptr<const ValueModel> model);

/// Plays the game `key` by `model` against itself and appends what there is to learn from it, in
/// the order in which it is to be learned.
void play_game(const ValueModel& model, const Learning& learning, GameKey key,
               std::vector<Lesson>& lessons);
/// Plays a game and learns from it. After the same games a model is the same, whoever played them,
/// and where they were interrupted.
/// Thread safety: none else uses `model`.
void learn_from_game(ValueModel& model, const Learning& learning, GameKey key);

}  // namespace tandem::kxo
