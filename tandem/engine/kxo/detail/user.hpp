// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "tandem/abi/kxo.h"
#include "tandem/base/mutex.hpp"
#include "tandem/engine/kxo/detail/account.hpp"
#include "tandem/engine/kxo/detail/agents.hpp"
#include "tandem/kxo/rules.hpp"
#include "tandem/pcie/pcie.hpp"
#include "tandem/rcu/hash_table.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::engine::kxo::detail {

using Clock = std::chrono::steady_clock;

/// One board, its referee and its ring.
///
/// Lifetime: the table holds one reference, an operation and a thread of the pool one each while
/// they use it. A look-up in a section takes a reference unless there is none any more; who drops
/// the last retires the user, so that it is freed after every such section.
class User final : public rcu::hash_node, public rcu::rcu_obj_base<User> {
 public:
  struct Setup {
    std::uint64_t id = 0;
    std::uint64_t owner = 0;  ///< number of the queue's session, never used again
    std::shared_ptr<Account> account;
    std::shared_ptr<std::atomic<std::uint64_t>> objects;  ///< users that are not freed yet
    std::shared_ptr<const tandem::kxo::Rules> rules;
    tandem_kxo_setup wanted{};
  };
  User(Setup setup, const pcie::AddressSpace& space);
  ~User();

  std::uint64_t id() const noexcept { return setup_.id; }
  std::uint64_t owner() const noexcept { return setup_.owner; }
  std::uint32_t memory_kib() const noexcept { return setup_.wanted.memory_kib; }
  Account& account() const noexcept { return *setup_.account; }
  const tandem::kxo::Rules& rules() const noexcept { return *setup_.rules; }

  /// \name References
  /// @{
  bool try_acquire() noexcept;
  void drop() noexcept;
  /// @}

  /// \name Operations. Errors are statuses; nothing is changed after one.
  /// Thread safety: any thread; may wait for another operation or publication of this user.
  /// @{

  /// Publishes that nothing is published yet. BAD_RANGE: the ring is not in reserved memory.
  tandem_status start();
  /// A move of the client's.
  Result<std::uint32_t, tandem_status> write(std::uint32_t cell);
  tandem_status set_players(std::uint8_t o, std::uint8_t x);
  tandem_kxo_board board();
  /// From its return on nobody reaches the ring. `tell`: the ring says so first.
  void end(bool tell);
  /// @}

  enum class Step : std::uint8_t {
    kMoved,  ///< an agent's move was published, or thrown away: ask again
    kIdle,   ///< somebody has to ask again: the client moves, makes room, or changes a permission
    kLater,  ///< ask again at `due`
    kUnprepared,  ///< ask again when more is prepared
  };
  /// Has the agent whose turn it is move. One thread at a time.
  /// Errors: std::bad_alloc; nothing has happened, ask again.
  Step step(AgentCache& agents, Clock::time_point& due);

  /// \name The pool's, under its mutex
  /// @{
  enum class Place : std::uint8_t { kIdle, kReady, kTimed, kUnprepared, kRunning, kRemoved };
  Place place = Place::kIdle;
  bool kicked = false;  ///< while it ran
  User* previous = nullptr;
  User* next = nullptr;
  std::size_t timer = 0;  ///< its place in the heap
  Clock::time_point due{};
  /// @}

  /// \name The owner's, under its mutex
  /// @{
  User* older = nullptr;
  User* younger = nullptr;
  /// @}

 private:
  class Ring;
  /// An agent's turn, as it was when it began.
  struct Turn {
    tandem::kxo::Position position;
    std::uint64_t game;
    std::uint32_t number;    // of the move
    std::uint32_t revision;  // of the permissions
    std::uint8_t player;
    std::optional<int> cell;  // what the agent said when it was asked before
  };

  tandem::kxo::Position current() const TANDEM_REQUIRES(mutex_) {
    return over_ ? tandem::kxo::Position{} : position_;
  }
  std::uint8_t player_to_move() const TANDEM_REQUIRES(mutex_) {
    return current().to_move() == tandem::kxo::Player::kO ? player_o_ : player_x_;
  }
  bool full() const TANDEM_REQUIRES(mutex_) {
    return published_ - taken_ >= setup_.wanted.capacity;
  }
  tandem_kxo_state state() const TANDEM_REQUIRES(mutex_);
  std::optional<Turn> next_turn(Step& step, Clock::time_point& due);
  std::optional<Result<int>> think(const Turn& turn, AgentCache& agents);
  /// Makes and publishes the move of the player whose turn it is; `cell` is free.
  std::uint32_t move(Ring& ring, int cell) TANDEM_REQUIRES(mutex_);
  void trace_move(const tandem::kxo::Position& before, int cell, tandem::kxo::Outcome outcome) const
      TANDEM_REQUIRES(mutex_);
  std::uint32_t traced_pasid() const { return space_.pasid() ? space_.pasid()->value : 0; }
  Step thrown_off(const pcie::DmaFault& fault, Clock::time_point& due) const;

  const Setup setup_;
  const pcie::AddressSpace space_;
  const Clock::duration pace_;
  std::atomic<std::uint32_t> references_{1};
  KeptAgents kept_;  // of the one thread that is in step()

  Mutex mutex_;
  tandem::kxo::Position position_ TANDEM_GUARDED_BY(mutex_);
  bool over_ TANDEM_GUARDED_BY(mutex_) = false;  // position_ is of a game that has ended
  bool ended_ TANDEM_GUARDED_BY(mutex_) = false;
  std::uint8_t player_o_ TANDEM_GUARDED_BY(mutex_);
  std::uint8_t player_x_ TANDEM_GUARDED_BY(mutex_);
  std::uint32_t published_ TANDEM_GUARDED_BY(mutex_) = 0;
  // By the client, when its word was last read. What it has taken it does not give back, so that
  // room which was there is there still.
  std::uint32_t taken_ TANDEM_GUARDED_BY(mutex_) = 0;
  std::uint32_t revision_ TANDEM_GUARDED_BY(mutex_) = 0;  // of the permissions
  std::uint64_t games_ TANDEM_GUARDED_BY(mutex_) = 0;
  bool stalled_ TANDEM_GUARDED_BY(mutex_) = false;
  Clock::time_point next_move_ TANDEM_GUARDED_BY(mutex_){};
  /// A move that could not be published: who keeps what it finds out is not asked twice.
  struct Found {
    std::uint32_t number = 0, revision = 0;
    int cell = 0;
  };
  std::optional<Found> found_ TANDEM_GUARDED_BY(mutex_);
};

/// A reference to a user, or none.
class UserRef {
 public:
  UserRef() = default;
  explicit UserRef(User* held) : user_(held) {}
  UserRef(UserRef&& other) noexcept : user_(std::exchange(other.user_, nullptr)) {}
  UserRef& operator=(UserRef&& other) noexcept {
    std::swap(user_, other.user_);
    return *this;
  }
  ~UserRef() {
    if (user_ != nullptr) user_->drop();
  }
  User* operator->() const { return user_; }
  User& operator*() const { return *user_; }
  explicit operator bool() const { return user_ != nullptr; }

 private:
  User* user_ = nullptr;
};

}  // namespace tandem::engine::kxo::detail
