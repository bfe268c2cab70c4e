// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "options.hpp"

namespace tandem::rcutorture {

/// The names that Options::domain takes, beside "all".
std::vector<std::string> domain_names();

/// Tortures what `options` name, the domains one after the other, and reports to `report`, or, if
/// that is null, what failed to standard error. Returns: whether nothing failed.
bool torture(const Options& options, std::FILE* report);

}  // namespace tandem::rcutorture
