// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "tandem/kxo/training.hpp"

namespace tandem::cli {

/// A line for each evaluation; what is unknown is empty.
std::string curve_csv(const std::vector<kxo::Evaluation>& curve);
/// Its shares over the number of games, as a picture.
std::string curve_svg(const std::string& title, const std::vector<kxo::Evaluation>& curve);

}  // namespace tandem::cli
