// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tandem/kxo/match.hpp"

namespace tandem::cli {

/// Prints who won: a crosstable, differences in Elo, the test's verdict.
void print_match(const kxo::Match& match);
/// The same as JSON; what is infinite is null.
void print_match_json(const kxo::Match& match);

}  // namespace tandem::cli
