// SPDX-License-Identifier: Apache-2.0
/// What the kxo benchmarks measure without a device, by the thread's CPU clock.
#pragma once

#include <cstdint>

#include "tandem/kxo/rules.hpp"

namespace tandem::bench {

/// Random games a second, from the empty board.
double playouts_per_second(const kxo::Rules& rules, int count);

/// Iterations a second of one-threaded MCTS that is given 10,000 of them for the opening. The tree
/// is cleared before each of `rounds`; a game that is proven sooner ends sooner.
double mcts_iterations_per_second(const kxo::Rules& rules, int rounds);
/// The same of so many threads that share a tree, by the wall clock, in moves of 5 ms of a game
/// against itself.
double mcts_threads_iterations_per_second(const kxo::Rules& rules, int threads, int games);

/// Nodes a second of negamax in the opening, with its default of 100,000 of them and an empty
/// table.
double negamax_nodes_per_second(const kxo::Rules& rules, int rounds);

/// Seconds to solve the game, with distances.
double solve_seconds(const kxo::Rules& rules);
/// Bytes that this takes at most.
double solve_bytes(const kxo::Rules& rules);

/// Negamax that thinks no longer than it has to.
struct Frugal {
  std::uint64_t nodes = 0;  ///< a move
  double kept_percent = 0;  ///< moves that keep the game's value, where some do not
};
/// The least power of two of nodes a move with which negamax keeps `percent` of the values.
Frugal frugal_negamax(const kxo::Rules& rules, double percent);

/// A game that negamax with so many nodes a move plays with itself.
struct GameCost {
  double seconds = 0;  ///< of CPU time, of both sides
  int moves = 0;
};
GameCost negamax_game(const kxo::Rules& rules, std::uint64_t nodes, int rounds);

}  // namespace tandem::bench
