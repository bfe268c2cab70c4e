// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tandem/kxo/random.hpp"
#include "tandem/kxo/rules.hpp"

namespace tandem::kxo {

/// Plays random moves from `position`, in which nobody has a row, to the end: each free cell with
/// the same probability, to within 2^-16.
Outcome playout(const Rules& rules, const Position& position, Random& random) noexcept;

}  // namespace tandem::kxo
