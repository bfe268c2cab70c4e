// SPDX-License-Identifier: Apache-2.0
#include <bit>

#include "tandem/kxo/detail/built_in_agents.hpp"

namespace tandem::kxo::detail {
namespace {

/// Each free cell with the same probability.
class RandomAgent final : public Agent {
 public:
  using Agent::Agent;

 private:
  Result<int> do_choose(const Position& position, const Budget&) override {
    const Cells free = rules().free(position);
    return nth_cell(
        free,
        static_cast<int>(random(position).below(static_cast<std::uint64_t>(std::popcount(free)))));
  }
};

}  // namespace

Result<std::unique_ptr<Agent>, std::string> make_random_agent(const Rules& rules, AgentOptions&) {
  return std::unique_ptr<Agent>(std::make_unique<RandomAgent>(rules));
}

}  // namespace tandem::kxo::detail
