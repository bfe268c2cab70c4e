// SPDX-License-Identifier: Apache-2.0
/// Who plays: an agent is given a position and chooses a move.
///
/// An agent is made by name, with options: "mcts:iterations=10000,threads=2". With one thread and
/// no limit of time its moves are a function of that text, the rules, the game's key and the
/// positions it was shown since the game began: a device and its client get the same ones.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "tandem/base/result.hpp"
#include "tandem/kxo/agent_options.hpp"
#include "tandem/kxo/random.hpp"
#include "tandem/kxo/rules.hpp"

namespace tandem::kxo {

/// What one move may cost; 0 is no limit. An agent's options have limits of their own: the tighter
/// one counts. An agent that is given no limit at all uses a default of its own.
struct Budget {
  std::chrono::nanoseconds time{0};
  std::uint64_t work = 0;  ///< nodes, or iterations: what the agent counts
  /// Once it is true nobody waits for the move any more: choose() soon returns, a cell or an error.
  /// Any thread may set it.
  const std::atomic<bool>* stop = nullptr;

  constexpr bool unlimited() const noexcept { return time.count() == 0 && work == 0; }
  friend constexpr bool operator==(const Budget&, const Budget&) = default;
};

/// The tighter limits of both; of two that can be stopped, who stops `a`.
Budget tighter(const Budget& a, const Budget& b) noexcept;

/// Thread safety: one thread at a time; different agents are independent.
class Agent {
 public:
  explicit Agent(const Rules& rules) : rules_(rules) {}
  virtual ~Agent() = default;
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  const Rules& rules() const noexcept { return rules_; }

  /// A game begins: what the agent remembers of the last one is forgotten. An agent that no game
  /// was begun for plays game 0 of seed 0.
  void begin(GameKey key);
  /// A free cell, for the player whose turn it is. The game may be one that others have played so
  /// far, or any other position.
  ///
  /// Errors: EINVAL when `position` is none of an open game; ENOMEM; what else the agent says of
  ///         itself. An answer that is no free cell is EPROTO.
  Result<int> choose(const Position& position, const Budget& budget = {});
  /// What the last choose() took: the nodes or iterations that Budget::work limits.
  std::uint64_t work() const noexcept { return work_; }

 protected:
  virtual void do_begin() {}
  virtual Result<int> do_choose(const Position& position, const Budget& budget) = 0;

  /// The random numbers for the move in `position`: those of the same move in the same game are the
  /// same ones, whatever was asked before.
  Random random(const Position& position, std::uint64_t stream = 0) const noexcept {
    return Random(key_, (stream << 8) + static_cast<std::uint64_t>(position.plies()));
  }
  void count_work(std::uint64_t work) noexcept { work_ += work; }

 private:
  Rules rules_;
  GameKey key_;
  std::uint64_t work_ = 0;
  bool lacks_memory_ = false;  // do_begin() ran out of it
};

/// What an error of choose() means, in words for people.
std::string why_no_move(const std::error_code& error);

/// A kind of agent, as it is registered.
struct AgentKind {
  using Maker = Result<std::unique_ptr<Agent>, std::string> (*)(const Rules& rules,
                                                                AgentOptions& options);
  using Preparer = std::shared_ptr<const void> (*)(const Rules& rules);

  std::string_view name;
  std::string_view summary;  ///< a line: what it does
  Maker make;
  /// Where `make` with no options takes long, seconds maybe, for something that all agents of a
  /// game share: makes that. While somebody keeps it, `make` is quick. Errors: std::bad_alloc.
  Preparer prepare = nullptr;
};

/// Makes `kind` known while the program runs. An agent outside of this module is a source file with
/// such an object at namespace scope; examples/agents/ has one. Names are unique.
class AgentRegistration {
 public:
  explicit AgentRegistration(const AgentKind& kind);
};

/// All kinds, sorted by name. Thread safety: any thread, once main() runs.
std::vector<AgentKind> agent_kinds();

/// The options that agents of this kind take, each with its value where it is not given.
std::vector<AgentOptions::Known> options_of(const AgentKind& kind);

/// The agent that `text` describes: NAME or NAME:OPTION=VALUE,…
/// Errors: a sentence about what is wrong with `text`, or what the agent says, e.g. of its files;
///         that there is not enough memory.
Result<std::unique_ptr<Agent>, std::string> make_agent(std::string_view text, const Rules& rules);

}  // namespace tandem::kxo
