// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tandem/kxo/agent.hpp"

namespace tandem::kxo::detail {

// Each in the source file of its agent.
Result<std::unique_ptr<Agent>, std::string> make_external_agent(const Rules&, AgentOptions&);
Result<std::unique_ptr<Agent>, std::string> make_mcts(const Rules&, AgentOptions&);
Result<std::unique_ptr<Agent>, std::string> make_negamax(const Rules&, AgentOptions&);
Result<std::unique_ptr<Agent>, std::string> make_perfect_agent(const Rules&, AgentOptions&);
Result<std::unique_ptr<Agent>, std::string> make_q_agent(const Rules&, AgentOptions&);
Result<std::unique_ptr<Agent>, std::string> make_random_agent(const Rules&, AgentOptions&);
Result<std::unique_ptr<Agent>, std::string> make_td_agent(const Rules&, AgentOptions&);

std::shared_ptr<const void> prepare_perfect_agent(const Rules&);
std::shared_ptr<const void> prepare_q_agent(const Rules&);
std::shared_ptr<const void> prepare_td_agent(const Rules&);

/// The agents of this module. Named here, so that a linker takes their files out of the library.
inline constexpr AgentKind kBuiltInAgents[] = {
    {"external", "another program: docs/kxo-engines.md", make_external_agent},
    {"mcts", "Monte-Carlo tree search with proven results", make_mcts},
    {"negamax", "alpha-beta search, deeper and deeper", make_negamax},
    {"perfect", "the solved game's best moves, up to sixteen cells", make_perfect_agent,
     prepare_perfect_agent},
    {"q", "what Q-learning found out", make_q_agent, prepare_q_agent},
    {"random", "any free cell", make_random_agent},
    {"td", "what TD(lambda) found out", make_td_agent, prepare_td_agent},
};

}  // namespace tandem::kxo::detail
