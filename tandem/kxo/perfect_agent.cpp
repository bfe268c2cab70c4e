// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <utility>

#include "tandem/kxo/detail/built_in_agents.hpp"
#include "tandem/kxo/solution.hpp"

namespace tandem::kxo::detail {
namespace {

/// One of the best moves: the fastest win, the longest loss. All agents of a game share one table.
class PerfectAgent final : public Agent {
 public:
  explicit PerfectAgent(std::shared_ptr<const Solution> solution)
      : Agent(solution->rules()), solution_(std::move(solution)) {}

 private:
  Result<int> do_choose(const Position& position, const Budget&) override {
    const Cells best = solution_->best(position);
    const auto count = static_cast<std::uint64_t>(std::popcount(best));
    return nth_cell(best, static_cast<int>(random(position).below(count)));
  }
  std::shared_ptr<const Solution> solution_;
};

}  // namespace

Result<std::unique_ptr<Agent>, std::string> make_perfect_agent(const Rules& rules, AgentOptions&) {
  auto solution = Solution::shared(rules);
  if (!solution) {
    return Unexpected{"boards of more than " + std::to_string(Solution::kMostCells) +
                      " cells are not solved"};
  }
  return std::unique_ptr<Agent>(std::make_unique<PerfectAgent>(std::move(*solution)));
}

std::shared_ptr<const void> prepare_perfect_agent(const Rules& rules) {
  auto solution = Solution::shared(rules);
  return solution ? std::move(*solution) : nullptr;
}

}  // namespace tandem::kxo::detail
