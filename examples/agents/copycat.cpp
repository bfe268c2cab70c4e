// SPDX-License-Identifier: Apache-2.0
// An agent outside of the library. Each source file in this directory is linked into what uses
// agents, so that `tandem kxo regret copycat` knows it and nothing else has to be edited.
//
// It answers in the cell opposite to one of the other player's where that is free.
#include <bit>

#include "tandem/kxo/agent.hpp"

namespace {

using namespace tandem::kxo;

class Copycat final : public Agent {
 public:
  using Agent::Agent;

 private:
  tandem::Result<int> do_choose(const Position& position, const Budget&) override {
    const Cells free = rules().free(position);
    const Cells theirs = position.of(opponent(position.to_move()));
    for (Cells rest = theirs; rest != 0; rest &= rest - 1) {
      const int opposite = rules().cells() - 1 - std::countr_zero(rest);
      if ((free & cell_bit(opposite)) != 0) return opposite;
    }
    return std::countr_zero(free);
  }
};

const AgentRegistration kCopycat({"copycat", "mirrors the other player",
                                  [](const Rules& rules, AgentOptions&) {
                                    return tandem::Result<std::unique_ptr<Agent>, std::string>(
                                        std::make_unique<Copycat>(rules));
                                  }});

}  // namespace
