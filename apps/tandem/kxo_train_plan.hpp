// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "apps/tandem/kxo_train.hpp"

namespace tandem::cli {

const char* method_name(kxo::Learning::Method method);

/// The plan that is asked for: on the ground of the game's defaults or of the plan that a training
/// was begun with, if any, which may not change. Errors: a sentence.
Result<kxo::TrainingPlan, std::string> make_plan(const TrainSettings& settings,
                                                 const kxo::TrainingPlan* begun);
/// As a file for --config.
std::string plan_toml(const kxo::TrainingPlan& plan);

}  // namespace tandem::cli
