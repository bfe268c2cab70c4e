// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "tandem/kxo/random.hpp"
#include "tandem/kxo/solution.hpp"
#include "tandem/kxo/value_model.hpp"

namespace tandem::kxo::detail {

/// Perfect play, where the game is small enough and moves can lose value; else none.
std::shared_ptr<const Solution> solution_with_regret(const Rules& rules);

/// The share of moves that keep the value of a position where some do not: see regret.hpp.
double kept_share(const std::shared_ptr<const ValueModel>& model, const Solution& solution,
                  std::uint64_t seed);

/// What `model` gets in games against `other` that begin with random moves, each beginning played
/// with both colours: a draw is half a point. The share of all points.
double points_against(const ValueModel& model, const ValueModel& other, GameKey key);

/// The share of games that `model` loses to random moves, as O and as X in turn.
double lost_to_random(const ValueModel& model, GameKey key);

}  // namespace tandem::kxo::detail
