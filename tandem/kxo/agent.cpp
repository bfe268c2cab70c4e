// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/agent.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <new>

#include "tandem/base/check.hpp"
#include "tandem/kxo/detail/built_in_agents.hpp"

namespace tandem::kxo {
namespace {

/// Filled before main(), from several files. Never destroyed: threads of an engine may ask until
/// the process has ended.
std::vector<AgentKind>& registered() {
  static auto& kinds = *new std::vector<AgentKind>(std::begin(detail::kBuiltInAgents),
                                                   std::end(detail::kBuiltInAgents));
  return kinds;
}

bool is_open(const Rules& rules, const Position& position) {
  const int ahead = std::popcount(position.o) - std::popcount(position.x);
  return (position.o & position.x) == 0 && (position.taken() & ~rules.all()) == 0 &&
         (ahead == 0 || ahead == 1) && rules.outcome(position) == Outcome::kOpen;
}

}  // namespace

Budget tighter(const Budget& a, const Budget& b) noexcept {
  const auto smaller = [](auto x, auto y) {
    return x == decltype(x){} ? y : y == decltype(y){} ? x : std::min(x, y);
  };
  return {smaller(a.time, b.time), smaller(a.work, b.work), a.stop != nullptr ? a.stop : b.stop};
}

void Agent::begin(GameKey key) {
  key_ = key;
  try {
    do_begin();
    lacks_memory_ = false;
  } catch (const std::bad_alloc&) {
    lacks_memory_ = true;
  }
}

Result<int> Agent::choose(const Position& position, const Budget& budget) {
  work_ = 0;
  if (!is_open(rules_, position)) return errno_error(EINVAL);
  if (lacks_memory_) return errno_error(ENOMEM);
  // Agents think on threads that nobody else looks after.
  const Result<int> cell = [&]() -> Result<int> {
    try {
      return do_choose(position, budget);
    } catch (const std::bad_alloc&) {
      return errno_error(ENOMEM);
    }
  }();
  if (!cell) return cell;
  const bool on_board = *cell >= 0 && *cell < rules_.cells();
  if (!on_board || (rules_.free(position) & cell_bit(*cell)) == 0) return errno_error(EPROTO);
  return cell;
}

std::string why_no_move(const std::error_code& error) {
  switch (error.value()) {
    case EPIPE:
      return "its program has ended, or could not be started";
    case ETIMEDOUT:
      return "its program did not answer in time";
    case EMSGSIZE:
      return "its program says too much";
    case EPROTO:
      return "its answer is no free cell";
    case ENOMEM:
      return "there is not enough memory for it";
    default:
      return error.message();
  }
}

AgentRegistration::AgentRegistration(const AgentKind& kind) {
  const auto same = [&](const AgentKind& other) { return other.name == kind.name; };
  TANDEM_CHECK(std::none_of(registered().begin(), registered().end(), same));
  registered().push_back(kind);
}

std::vector<AgentKind> agent_kinds() {
  std::vector<AgentKind> kinds = registered();
  std::sort(kinds.begin(), kinds.end(),
            [](const AgentKind& a, const AgentKind& b) { return a.name < b.name; });
  return kinds;
}

std::vector<AgentOptions::Known> options_of(const AgentKind& kind) {
  // One that no agent has: who would begin something long sees that it is for nothing.
  auto options = AgentOptions::parse("?=").value();
  (void)kind.make(Rules::make(3, 3, 3).value(), options);
  return options.known();
}

Result<std::unique_ptr<Agent>, std::string> make_agent(std::string_view text, const Rules& rules) {
  const std::string_view name = text.substr(0, text.find(':'));
  const std::string_view rest = name.size() < text.size() ? text.substr(name.size() + 1) : "";
  std::string known;
  for (const AgentKind& kind : agent_kinds()) {
    known += (known.empty() ? "" : ", ") + std::string(kind.name);
    if (kind.name != name) continue;
    const auto fail = [&](const std::string& why) {
      return Unexpected{std::string(name) + ": " + why};
    };
    auto options = AgentOptions::parse(rest);
    if (!options) return fail(options.error());
    auto agent = [&]() -> Result<std::unique_ptr<Agent>, std::string> {
      try {
        return kind.make(rules, *options);
      } catch (const std::bad_alloc&) {
        return Unexpected{std::string("there is not enough memory for it")};
      }
    }();
    // An option that is wrong says more than what came of its fallback.
    if (const std::string error = options->error(); !error.empty()) return fail(error);
    if (!agent) return fail(agent.error());
    return agent;
  }
  return Unexpected{"no agent '" + std::string(name) + "'; there are: " + known};
}

}  // namespace tandem::kxo
