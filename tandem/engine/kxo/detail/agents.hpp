// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "tandem/engine/kxo/detail/preparations.hpp"
#include "tandem/engine/kxo/kxo.hpp"

namespace tandem::engine::kxo::detail {

/// The agents of module kxo under their numbers.
std::shared_ptr<const AgentSource> registered_agents();

/// Agents of one board, which keep what they find out from move to move. Of whoever has the board.
struct KeptAgents {
  std::size_t memory_bytes = 0;     ///< of both together; 0: there are none
  std::uint32_t revision = 0;       ///< of the permissions that they are for
  std::unique_ptr<Agent> sides[2];  ///< O's and X's; made when they are asked
  /// Of the board, whoever keeps its agents.
  Preparations::Waiting waiting;
  Preparations::Tenant tenant;  ///< whose board it is

  /// New permissions, new agents: what those before were asked, and when, is a matter of chance.
  void follow(std::uint32_t now) {
    if (std::exchange(revision, now) == now) return;
    for (auto& side : sides) side.reset();
    waiting.reset();
  }
};

/// The agents of one thread.
class AgentCache {
 public:
  /// Without `preparations` agents are made as soon as they are asked, however long that takes.
  explicit AgentCache(std::shared_ptr<const AgentSource> source,
                      Preparations* preparations = nullptr)
      : source_(std::move(source)), preparations_(preparations) {}

  /// A free cell, from one of `kept` if there are any. Nothing: what the agent needs is not there
  /// yet. Errors: those of Agent::choose(); EINVAL no such agent for these rules, or no memory for
  ///         one of `kept`, of which the client may have asked too much; EPROTO it answered with a
  ///         cell that is not free. std::bad_alloc: there is no memory now, ask again.
  std::optional<Result<int>> choose(std::uint8_t player, const tandem::kxo::Rules& rules,
                                    const tandem::kxo::Position& position, const Game& game,
                                    KeptAgents& kept);

 private:
  struct Entry {
    std::uint8_t player;
    tandem::kxo::Rules rules;
    std::unique_ptr<Agent> agent;
  };
  static constexpr std::size_t kMost = 16;

  /// nullptr: it is to be made.
  Agent* find(std::uint8_t player, const tandem::kxo::Rules& rules);
  /// In the place of who was asked longest ago, where there is no other.
  void keep(std::uint8_t player, const tandem::kxo::Rules& rules, std::unique_ptr<Agent> agent);
  /// Nothing: it has to be prepared first. nullptr: there is no such agent for these rules, or
  /// no memory for one of `kept`. Errors: std::bad_alloc, ask again.
  std::optional<std::unique_ptr<Agent>> make(std::uint8_t player, const tandem::kxo::Rules& rules,
                                             KeptAgents& kept);

  const std::shared_ptr<const AgentSource> source_;
  Preparations* const preparations_;
  std::vector<Entry> entries_;  // used last stands last
};

}  // namespace tandem::engine::kxo::detail
