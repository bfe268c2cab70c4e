// SPDX-License-Identifier: Apache-2.0
// Shared by tests.
#pragma once

#include <bit>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "tandem/kxo/agent.hpp"

namespace tandem::kxo::detail {

/// The agent that `text` describes; ends the test's process when there is none.
inline std::unique_ptr<Agent> agent_of(std::string_view text, const Rules& rules) {
  return std::move(make_agent(text, rules).value());
}

/// The position after these cells, in turn.
template <class... Cell>
Position after(Cell... cells) {
  Position position;
  for (const int cell : {cells...}) position = position.after(cell);
  return position;
}

/// The probability of each outcome of random play, by trying everything.
inline std::map<Outcome, double> random_play(const Rules& rules, const Position& position) {
  const Outcome outcome = rules.outcome(position);
  if (outcome != Outcome::kOpen) return {{outcome, 1.0}};
  std::map<Outcome, double> sum;
  const Cells free = rules.free(position);
  for (Cells rest = free; rest != 0; rest &= rest - 1) {
    for (const auto& [end, share] : random_play(rules, position.after(std::countr_zero(rest)))) {
      sum[end] += share / std::popcount(free);
    }
  }
  return sum;
}

/// The cells of a game that `o` and `x` play, a letter each.
inline std::string game_between(Agent& o, Agent& x, GameKey key, const Budget& budget = {}) {
  std::string cells;
  Position position;
  o.begin(key);
  if (&x != &o) x.begin(key);
  while (o.rules().outcome(position) == Outcome::kOpen) {
    Agent& mover = position.to_move() == Player::kO ? o : x;
    const int cell = mover.choose(position, budget).value();
    cells += static_cast<char>('0' + cell);
    position = position.after(cell);
  }
  return cells;
}

}  // namespace tandem::kxo::detail
