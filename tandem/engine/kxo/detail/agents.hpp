// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "tandem/engine/kxo/kxo.hpp"

namespace tandem::engine::kxo::detail {

/// The agents of module kxo under their numbers.
std::shared_ptr<const AgentSource> registered_agents();

/// The agents of one thread.
class AgentCache {
 public:
  explicit AgentCache(std::shared_ptr<const AgentSource> source) : source_(std::move(source)) {}

  /// A free cell. Errors: those of Agent::choose(); EINVAL no such agent for these rules; EPROTO it
  ///         answered with a cell that is not free.
  Result<int> choose(std::uint8_t player, const tandem::kxo::Rules& rules,
                     const tandem::kxo::Position& position, const Game& game);

 private:
  struct Entry {
    std::uint8_t player;
    tandem::kxo::Rules rules;
    std::unique_ptr<Agent> agent;
  };
  static constexpr std::size_t kMost = 16;

  const std::shared_ptr<const AgentSource> source_;
  std::vector<Entry> entries_;  // used last stands last
};

}  // namespace tandem::engine::kxo::detail
