// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/kxo_train_plan.hpp"

#include "tandem/kxo/notation.hpp"

namespace tandem::cli {

using kxo::Learning;
using kxo::TrainingPlan;

const char* method_name(Learning::Method method) {
  return method == Learning::Method::kTd ? "td" : "q";
}

Result<TrainingPlan, std::string> make_plan(const TrainSettings& settings,
                                            const TrainingPlan* begun) {
  const auto method = settings.method == "q" ? Learning::Method::kQ : Learning::Method::kTd;
  TrainingPlan plan = begun != nullptr ? *begun : TrainingPlan::of(settings.rules, method);
  std::string changed;
  const auto change = [&](const char* name, auto& value, const auto& asked) {
    if (begun != nullptr && value != asked && changed.empty()) changed = name;
    value = asked;
  };
  const auto take = [&](const char* name, auto& value, const auto& asked) {
    if (asked) change(name, value, *asked);
  };
  if (settings.game_given) change("game", plan.rules, settings.rules);
  if (settings.method) change("method", plan.learning.method, method);
  take("lambda", plan.learning.lambda, settings.lambda);
  take("rate", plan.learning.rate, settings.rate);
  take("halved-after", plan.learning.halved_after, settings.halved_after);
  take("exploration", plan.learning.exploration, settings.exploration);
  take("random-plies", plan.learning.random_plies, settings.random_plies);
  take("discount", plan.learning.discount, settings.discount);
  take("seed", plan.seed, settings.seed);
  take("generation", plan.generation, settings.generation);
  take("evaluate-every", plan.evaluate_every, settings.evaluate_every);
  if (!changed.empty()) return Unexpected{"was begun with another " + changed};
  if (const auto fits = plan.check(); !fits) return Unexpected{fits.error()};
  return plan;
}

std::string plan_toml(const TrainingPlan& plan) {
  const Learning& learning = plan.learning;
  return fmt::format(
      "# tandem kxo train --config FILE --games N\n"
      "game = \"{}\"\nmethod = \"{}\"\nlambda = {}\nrate = {}\nhalved-after = {}\n"
      "exploration = {}\nrandom-plies = {}\ndiscount = {}\nseed = {}\ngeneration = {}\n"
      "evaluate-every = {}\n",
      kxo::game_name(plan.rules), method_name(learning.method), learning.lambda, learning.rate,
      learning.halved_after, learning.exploration, learning.random_plies, learning.discount,
      plan.seed, plan.generation, plan.evaluate_every);
}

}  // namespace tandem::cli
