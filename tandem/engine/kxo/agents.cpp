// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/kxo/detail/agents.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <iterator>
#include <new>
#include <optional>
#include <string>
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

/// Of MCTS, a node (24) and the room for its copy, with the rests of slabs.
constexpr std::size_t kNodeBytes = 64;
/// Of negamax, in its table.
constexpr std::size_t kEntryBytes = 16;

/// The agent's options, which keep it within `memory_bytes`.
std::string options_of(std::uint8_t player, std::size_t memory_bytes) {
  if (memory_bytes == 0) return {};
  if (player == TANDEM_KXO_MCTS) {
    return "nodes=" + std::to_string(std::max<std::size_t>(1, memory_bytes / kNodeBytes));
  }
  if (player == TANDEM_KXO_NEGAMAX) {
    const auto log2 = std::bit_width(memory_bytes / kEntryBytes) - 1;
    return "table=" + std::to_string(std::clamp<int>(static_cast<int>(log2), 4, 30));
  }
  return {};
}

/// An agent of module kxo. One that keeps nothing is told of the game before each move, and so
/// forgets the move before.
class RegisteredAgent final : public Agent {
 public:
  RegisteredAgent(std::unique_ptr<tandem::kxo::Agent> agent, bool keeps)
      : agent_(std::move(agent)), keeps_(keeps) {}

  Result<int> choose(const tandem::kxo::Position& position, const Game& game) override {
    tandem::kxo::Budget budget;
    if (game.work != 0) budget = {kLongestMove, game.work};
    const tandem::kxo::GameKey key{game.seed, game.number};
    if (!keeps_ || begun_ != key) agent_->begin(key);
    begun_ = key;
    return agent_->choose(position, budget);
  }

 private:
  const std::unique_ptr<tandem::kxo::Agent> agent_;
  const bool keeps_;
  std::optional<tandem::kxo::GameKey> begun_;
};

class RegisteredAgents final : public AgentSource {
 public:
  RegisteredAgents() {
    for (const auto& kind : tandem::kxo::agent_kinds()) {
      const auto at = std::find(kNames.begin(), kNames.end(), kind.name);
      if (at != kNames.end()) kinds_[static_cast<std::size_t>(at - kNames.begin())] = kind;
    }
  }

  bool knows(std::uint8_t player) const override {
    return player < kinds_.size() && kinds_[player].has_value();
  }
  std::unique_ptr<Agent> make(std::uint8_t player, const tandem::kxo::Rules& rules,
                              std::size_t memory_bytes) const override {
    if (!knows(player)) return nullptr;
    // Not make_agent(): for that, who lacks memory now is as who never plays by these rules.
    auto options = tandem::kxo::AgentOptions::parse(options_of(player, memory_bytes));
    if (!options) return nullptr;
    auto made = kinds_[player]->make(rules, *options);
    if (!made || !options->error().empty()) return nullptr;
    return std::make_unique<RegisteredAgent>(std::move(*made), memory_bytes != 0);
  }
  bool needs_preparation(std::uint8_t player) const override {
    return knows(player) && kinds_[player]->prepare != nullptr;
  }
  std::shared_ptr<const void> prepare(std::uint8_t player,
                                      const tandem::kxo::Rules& rules) const override {
    return kinds_[player]->prepare(rules);
  }

 private:
  std::array<std::optional<tandem::kxo::AgentKind>, kNames.size()> kinds_;  // by number
};

}  // namespace

std::shared_ptr<const AgentSource> registered_agents() {
  return std::make_shared<RegisteredAgents>();
}

Agent* AgentCache::find(std::uint8_t player, const tandem::kxo::Rules& rules) {
  const auto at = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return entry.player == player && entry.rules == rules;
  });
  if (at == entries_.end()) return nullptr;
  std::rotate(at, at + 1, entries_.end());
  return entries_.back().agent.get();
}

void AgentCache::keep(std::uint8_t player, const tandem::kxo::Rules& rules,
                      std::unique_ptr<Agent> agent) {
  if (entries_.size() == kMost) entries_.erase(entries_.begin());
  entries_.push_back({player, rules, std::move(agent)});
}

std::optional<std::unique_ptr<Agent>> AgentCache::make(std::uint8_t player,
                                                       const tandem::kxo::Rules& rules,
                                                       KeptAgents& kept) {
  std::optional<Result<Preparations::Thing>> needed;  // kept until the agent has it
  if (preparations_ != nullptr && source_->needs_preparation(player)) {
    needed = preparations_->find(kept.tenant, player, rules, kept.waiting);
    if (!needed) return std::nullopt;
    // Were it to be made here, a thread of the pool would be gone for seconds.
    if (!*needed) throw std::bad_alloc();
  }
  try {
    return source_->make(player, rules, kept.memory_bytes / std::size(kept.sides));
  } catch (const std::bad_alloc&) {
    if (kept.memory_bytes == 0) throw;
    return nullptr;  // the client says how much
  }
}

std::optional<Result<int>> AgentCache::choose(std::uint8_t player, const tandem::kxo::Rules& rules,
                                              const tandem::kxo::Position& position,
                                              const Game& game, KeptAgents& kept) {
  const std::size_t side = position.to_move() == tandem::kxo::Player::kO ? 0 : 1;
  const bool shared = kept.memory_bytes == 0;
  Agent* agent = shared ? find(player, rules) : kept.sides[side].get();
  if (agent == nullptr) {
    auto made = make(player, rules, kept);
    if (!made) return std::nullopt;
    if (*made == nullptr) return errno_error(EINVAL);
    agent = made->get();
    // Not before there is one: others' agents do not go for nothing.
    if (shared) {
      keep(player, rules, std::move(*made));
    } else {
      kept.sides[side] = std::move(*made);
    }
  }
  const Result<int> cell = agent->choose(position, game);
  if (!cell && shared && cell.error() == std::errc::not_enough_memory) throw std::bad_alloc();
  if (!cell) return cell;
  const bool on_board = *cell >= 0 && *cell < rules.cells();
  if (!on_board || (rules.free(position) & tandem::kxo::cell_bit(*cell)) == 0) {
    return errno_error(EPROTO);
  }
  return cell;
}

}  // namespace tandem::engine::kxo::detail
