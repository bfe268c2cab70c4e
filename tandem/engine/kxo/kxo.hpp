// SPDX-License-Identifier: Apache-2.0
/// The game device: a referee for many users, of many owners that distrust each other.
///
/// An owner is an open queue. Its users are boards; they end with it. Operations make, change and
/// end users (tandem/abi/kxo.h); moves are published in rings in the owners' reserved memory.
///
/// The life of one move. A user whose player to move is an agent is a work item. A thread of the
/// pool takes it, lets the agent choose on a copy of the position, and publishes the move under the
/// user's mutex, unless the user ended or its permission changed meanwhile. The user goes to the
/// back of its tenant's list; tenants take turns by the time that they used. A board that waits,
/// for its client's move, for room in the ring or for its pace, is in no list (or in the timer heap
/// for its pace) and costs nothing. What agents need before their first move and what takes long,
/// a solved game or a model, a thread beside the pool makes while others play.
///
/// What is shared, and what a thread that is suspended in the midst of it holds up:
///   * table of users (rcu::hash_table): a look-up is wait-free, an update locks a bucket;
///   * a user's end: a count of references, lock-free; freed a grace period after the last;
///   * a user's board: its mutex, held to publish, not while an agent thinks. Held up: control
///     calls of that one user;
///   * lists and timers of the pool: one mutex, held for a few instructions. Held up: the pool;
///   * a ring: the device writes, the client reads, both wait-free. A client that takes no moves
///     stalls its own board and nothing else;
///   * what agents need first (detail::Preparations): a mutex, not held while it is made.
/// docs/spec/kxo-device.md, "Progress", has the tests.
///
/// Lock order: Owner → User; the pool's mutex is taken with none of them held and takes none.
/// Left out: spectators of other owners' boards, games against other owners.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "tandem/base/result.hpp"
#include "tandem/kxo/rules.hpp"
#include "tandem/uacce/device.hpp"

namespace tandem::engine::kxo {

/// A game, and what a move of it may cost.
struct Game {
  std::uint64_t seed = 0;
  std::uint64_t number = 0;  ///< of the board's games, from 0
  std::uint32_t work = 0;    ///< nodes or iterations for a move; 0: the agent's default
};

/// Chooses moves, for all boards that one thread serves, or for a player of one board that pays
/// for what it keeps. Thread safety: one thread at a time.
class Agent {
 public:
  virtual ~Agent() = default;
  /// A free cell for the player whose turn it is: a function of its arguments alone, whatever was
  /// asked before. An agent with memory: also of the positions of the same game that it was asked
  /// about before. Errors: ENOMEM no memory for this move; what else the agent says of itself.
  virtual Result<int> choose(const tandem::kxo::Position& position, const Game& game) = 0;
};

/// Who plays under which number of enum tandem_kxo_player. Thread safety: any thread.
class AgentSource {
 public:
  virtual ~AgentSource() = default;
  virtual bool knows(std::uint8_t player) const = 0;
  /// `memory_bytes`: what it may keep from move to move; 0: nothing.
  /// Returns: nullptr when that agent does not play by `rules`. Errors: std::bad_alloc.
  virtual std::unique_ptr<Agent> make(std::uint8_t player, const tandem::kxo::Rules& rules,
                                      std::size_t memory_bytes) const = 0;
  /// Whether make() takes long where nobody keeps what prepare() gives.
  virtual bool needs_preparation(std::uint8_t) const { return false; }
  /// What all agents of that player and game share. Boards wait for it beside the pool; tenants
  /// take turns. Errors: std::bad_alloc, and it is tried again.
  virtual std::shared_ptr<const void> prepare(std::uint8_t, const tandem::kxo::Rules&) const {
    return nullptr;
  }
};

struct Options {
  /// Threads of the pool; 0: none, RESUME lets agents move in the thread that runs the operation.
  int threads = 1;
  /// \name Quotas: users there may be; beyond, GET_ID and SET_PERMISSION say NO_ROOM
  /// @{
  std::uint32_t users_per_owner = 1u << 15;
  std::uint32_t users_per_tenant = 1u << 17;
  std::uint32_t users = 1u << 20;
  std::uint32_t memory_kib_per_owner = 64u << 10;  ///< of all its users' memory_kib
  /// Agents, by games, whose preparation a tenant's users wait for at a time.
  std::uint32_t preparations_per_tenant = 16;
  /// @}
  /// nullptr: those that module kxo has registered.
  std::shared_ptr<const AgentSource> agents;
};

/// A device named `name` with the algorithm "game".
std::unique_ptr<uacce::Engine> make_engine(std::string name = "kxo", Options options = {});

}  // namespace tandem::engine::kxo
