// SPDX-License-Identifier: Apache-2.0
#include <tuple>
#include <utility>

#include "tandem/kxo/detail/built_in_agents.hpp"
#include "tandem/kxo/detail/shared_cache.hpp"
#include "tandem/kxo/learner.hpp"

namespace tandem::kxo::detail {
namespace {

using Model = std::shared_ptr<const ValueModel>;
using Method = Learning::Method;

/// Games that an agent without a file learns from before its first move: a second or less.
constexpr std::uint64_t kGames = 200'000;
constexpr std::uint64_t kMostGames = 100'000'000;
constexpr std::uint64_t kSeed = 1;

/// What is learned from that many games of a seed, for all agents who ask for the same.
Model learned(const Rules& rules, Method method, std::uint64_t games, std::uint64_t seed) {
  using Key = std::tuple<Rules, Method, std::uint64_t, std::uint64_t>;
  static auto& cache = SharedCache<Key, ValueModel>::for_ever();
  const auto learn = [&]() -> Result<Model> {
    std::shared_ptr<ValueModel> model = ValueModel::make(rules);
    const Learning learning = Learning::of(method, model->kind());
    for (std::uint64_t game = 0; game < games; ++game) {
      learn_from_game(*model, learning, {seed, game});
    }
    return Model(std::move(model));
  };
  return cache.get({rules, method, games, seed}, learn).value();
}

bool is_small(const Rules& rules) { return rules.cells() <= 16; }

std::shared_ptr<const void> prepare(const Rules& rules, Method method) {
  return is_small(rules) ? learned(rules, method, kGames, kSeed) : nullptr;
}

Result<std::unique_ptr<Agent>, std::string> make(const Rules& rules, Method method,
                                                 AgentOptions& options) {
  const std::string path = options.text("model", "");
  const bool small = is_small(rules);
  const std::uint64_t games = options.number("games", small ? kGames : 0, 0, kMostGames);
  const std::uint64_t seed = options.number("seed", kSeed, 0, ~std::uint64_t{0});
  if (const std::string error = options.error(); !error.empty()) return Unexpected{error};
  if (path.empty() && games == 0 && !small) {
    return Unexpected{std::string("boards of more than 16 cells need model=PATH or games=N")};
  }
  if (path.empty()) {
    return greedy_agent(learned(rules, method, games, seed));
  }
  auto trained = load_model(path, rules);
  if (!trained) return Unexpected{trained.error()};
  return greedy_agent(std::move(trained->model));
}

}  // namespace

Result<std::unique_ptr<Agent>, std::string> make_q_agent(const Rules& rules,
                                                         AgentOptions& options) {
  return make(rules, Method::kQ, options);
}
Result<std::unique_ptr<Agent>, std::string> make_td_agent(const Rules& rules,
                                                          AgentOptions& options) {
  return make(rules, Method::kTd, options);
}
std::shared_ptr<const void> prepare_q_agent(const Rules& rules) {
  return prepare(rules, Method::kQ);
}
std::shared_ptr<const void> prepare_td_agent(const Rules& rules) {
  return prepare(rules, Method::kTd);
}

}  // namespace tandem::kxo::detail
