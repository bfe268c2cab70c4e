// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

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
  double lambda = 0.5;       ///< of TD: from 0, the next position alone, to 1, the game's end
  double rate = 0.5;         ///< of learning
  double exploration = 0.3;  ///< the share of random moves
  double discount = 0.98;    ///< for each ply: wins that come sooner are worth more
  int random_plies = 8;      ///< games begin with up to so many random moves

  /// What suits `method` and a kind of model.
  static Learning of(Method method, ValueModel::Kind kind);
};

/// Whoever moves wins at once where that is possible, or else goes where the model promises most;
/// several such cells are equally likely. Returns the cell.
int greedy_move(const ValueModel& model, const Position& position, Random& random) noexcept;

/// Plays the game `key` against itself and learns from it. After the same games a model is the
/// same, whoever played them, and where they were interrupted.
/// Thread safety: none else uses `model`.
void learn_from_game(ValueModel& model, const Learning& learning, GameKey key);

}  // namespace tandem::kxo
