// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tandem/base/result.hpp"

namespace tandem::cli {

/// `name = value`, as the value is without its quotes.
struct TomlLine {
  int number = 0;
  std::string name, value;
};

/// A TOML file of settings that stand beside each other: names with texts, numbers, or true and
/// false; comments and blank lines. No sections, lists or texts of several lines.
/// Errors: a sentence about the first line that is none of these, with its number.
Result<std::vector<TomlLine>, std::string> parse_toml_lines(std::string_view text);

}  // namespace tandem::cli
