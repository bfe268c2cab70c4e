// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "tandem/engine/kxo/kxo.hpp"

namespace tandem::engine::kxo::detail {

/// The agents of module kxo under their numbers.
std::shared_ptr<const AgentSource> registered_agents();

/// Agents of one board, which keep what they find out from move to move. Of whoever has the board.
struct KeptAgents {
  std::size_t memory_bytes = 0;     ///< of both together; 0: there are none
  std::uint32_t revision = 0;       ///< of the permissions that they are for
  std::unique_ptr<Agent> sides[2];  ///< O's and X's; made when they are asked

  /// New permissions, new agents: what those before were asked, and when, is a matter of chance.
  void follow(std::uint32_t now) {
    if (std::exchange(revision, now) == now) return;
    for (auto& side : sides) side.reset();
  }
};

/// The agents of one thread.
class AgentCache {
 public:
  explicit AgentCache(std::shared_ptr<const AgentSource> source) : source_(std::move(source)) {}

  /// A free cell, from one of `kept` if there are any. Errors: those of Agent::choose(); EINVAL no
  /// such agent for these rules; EPROTO it
  ///         answered with a cell that is not free.
  Result<int> choose(std::uint8_t player, const tandem::kxo::Rules& rules,
                     const tandem::kxo::Position& position, const Game& game, KeptAgents& kept);

 private:
  struct Entry {
    std::uint8_t player;
    tandem::kxo::Rules rules;
    std::unique_ptr<Agent> agent;
  };
  static constexpr std::size_t kMost = 16;

  /// nullptr: there is no such agent for these rules.
  Agent* find(std::uint8_t player, const tandem::kxo::Rules& rules);
  Agent* find_kept(std::uint8_t player, const tandem::kxo::Rules& rules,
                   const tandem::kxo::Position& position, KeptAgents& kept);

  const std::shared_ptr<const AgentSource> source_;
  std::vector<Entry> entries_;  // used last stands last
};

}  // namespace tandem::engine::kxo::detail
