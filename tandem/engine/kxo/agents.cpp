// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/kxo/detail/agents.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <string_view>
#include <utility>

#include "tandem/abi/kxo.h"
#include "tandem/kxo/agent.hpp"

namespace tandem::engine::kxo::detail {
namespace {

/// By number; empty: not an agent.
constexpr std::array<std::string_view, TANDEM_KXO_PLAYERS> kNames = {
    "", "mcts", "negamax", "td", "random", "perfect", "q"};
/// What a move may take whose work is the client's to say.
constexpr std::chrono::seconds kLongestMove{1};

/// An agent of module kxo. It is told of the game before each move, and so forgets the move before.
class RegisteredAgent final : public Agent {
 public:
  explicit RegisteredAgent(std::unique_ptr<tandem::kxo::Agent> agent) : agent_(std::move(agent)) {}

  Result<int> choose(const tandem::kxo::Position& position, const Game& game) override {
    tandem::kxo::Budget budget;
    if (game.work != 0) budget = {kLongestMove, game.work};
    agent_->begin({game.seed, game.number});
    return agent_->choose(position, budget);
  }

 private:
  const std::unique_ptr<tandem::kxo::Agent> agent_;
};

class RegisteredAgents final : public AgentSource {
 public:
  bool knows(std::uint8_t player) const override {
    if (player >= kNames.size() || kNames[player].empty()) return false;
    const auto kinds = tandem::kxo::agent_kinds();
    return std::any_of(kinds.begin(), kinds.end(),
                       [&](const auto& kind) { return kind.name == kNames[player]; });
  }
  std::unique_ptr<Agent> make(std::uint8_t player, const tandem::kxo::Rules& rules) const override {
    if (!knows(player)) return nullptr;
    auto made = tandem::kxo::make_agent(kNames[player], rules);
    return made ? std::make_unique<RegisteredAgent>(std::move(*made)) : nullptr;
  }
};

}  // namespace

std::shared_ptr<const AgentSource> registered_agents() {
  return std::make_shared<RegisteredAgents>();
}

Result<int> AgentCache::choose(std::uint8_t player, const tandem::kxo::Rules& rules,
                               const tandem::kxo::Position& position, const Game& game) {
  const auto at = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return entry.player == player && entry.rules == rules;
  });
  if (at != entries_.end()) {
    std::rotate(at, at + 1, entries_.end());
  } else {
    auto agent = source_->make(player, rules);
    if (agent == nullptr) return errno_error(EINVAL);
    if (entries_.size() == kMost) entries_.erase(entries_.begin());
    entries_.push_back({player, rules, std::move(agent)});
  }
  const Result<int> cell = entries_.back().agent->choose(position, game);
  if (!cell) return cell;
  const bool on_board = *cell >= 0 && *cell < rules.cells();
  if (!on_board || (rules.free(position) & tandem::kxo::cell_bit(*cell)) == 0) {
    return errno_error(EPROTO);
  }
  return cell;
}

}  // namespace tandem::engine::kxo::detail
