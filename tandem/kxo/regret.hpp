// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

#include "tandem/base/result.hpp"
#include "tandem/kxo/agent.hpp"
#include "tandem/kxo/solution.hpp"

namespace tandem::kxo {

/// How an agent plays where it can go wrong, compared with perfect play.
struct Regret {
  std::uint64_t positions = 0;
  std::uint64_t kept = 0;            ///< moves that keep the value of the game
  std::uint64_t best = 0;            ///< those that also win as fast, or lose as late, as can be
  std::uint64_t work = 0;            ///< Agent::work() of all
  std::chrono::nanoseconds time{0};  ///< of all moves
  std::chrono::nanoseconds median{0}, longest{0};  ///< of one move

  double kept_share() const noexcept {
    return static_cast<double>(kept) / static_cast<double>(positions);
  }
};

/// A position after at most eight random moves, in which some move loses value: number `index` of
/// those that belong to `seed`. Ends only if the game has such positions, as have_regret() says.
Position position_with_regret(const Solution& solution, std::uint64_t seed, std::uint64_t index);
/// Whether there are such positions.
bool have_regret(const Solution& solution);

/// Asks `agent` for one move in each of `positions` of them, each as the first of a new game.
/// After each, outside of the time that is measured, `tell` is called with how many there were.
/// Errors: what the agent answers instead of a move; EDOM when no move of the game loses value.
Result<Regret> measure_regret(Agent& agent, const Solution& solution, std::uint64_t positions,
                              std::uint64_t seed, const Budget& budget = {},
                              const std::function<void(std::uint64_t)>& tell = {});

}  // namespace tandem::kxo
