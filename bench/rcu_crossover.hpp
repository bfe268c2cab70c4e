// SPDX-License-Identifier: Apache-2.0
/// Reader-writer locks against RCU over the length of sections and the number of threads.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "bench/harness.hpp"

namespace tandem::bench {

/// Adds a case without a target for each length, number of threads and lock. A sample is how much
/// of the CPUs' time is spent inside sections, in percent.
void add_crossover(std::vector<Case>& list, bool quick);

/// The results of those cases, drawn as SVG; `machine` is where they were measured, as XML text.
std::string plot_crossover(const nlohmann::json& report, const std::string& machine);

}  // namespace tandem::bench
