// SPDX-License-Identifier: Apache-2.0
/// What options take. CLI11 by itself reads -1 as the largest number, 010 as eight, a number that
/// is too large as the largest one, and finds nan in every range.
#pragma once

#include <cstdint>
#include <limits>

namespace CLI {
class Validator;  // not <CLI/CLI.hpp>: it takes ten seconds to compile
}

namespace tandem::cli {

/// A whole number in [least, most], in decimal digits, without zeros in front.
CLI::Validator whole_number(std::uint64_t least = 0,
                            std::uint64_t most = std::numeric_limits<std::uint64_t>::max());
/// A number in [least, most].
CLI::Validator number_in(double least, double most);
/// A name of a file: "" would be taken for none, and what should be kept be lost.
CLI::Validator not_empty();

}  // namespace tandem::cli
