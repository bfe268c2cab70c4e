// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tandem/base/result.hpp"

namespace tandem::kxo {

/// The options of an agent: "iterations=10000,time=1ms". A comma or backslash in a value has a
/// backslash before it.
///
/// Each getter gives the option's value, or `fallback` when the text has none. What is wrong with
/// the text is collected: error() tells it after all options have been asked for.
class AgentOptions {
 public:
  /// Errors: a sentence about what is no option, or one that is given twice.
  static Result<AgentOptions, std::string> parse(std::string_view text);

  /// In [least, most].
  std::uint64_t number(std::string_view name, std::uint64_t fallback, std::uint64_t least,
                       std::uint64_t most);
  /// In [least, most].
  double real(std::string_view name, double fallback, double least, double most);
  /// A number with a unit: ns, us, ms or s.
  std::chrono::nanoseconds time(std::string_view name, std::chrono::nanoseconds fallback);
  std::string text(std::string_view name, std::string_view fallback);

  /// The first thing that is wrong, options that nobody asked for included; empty when all is well.
  std::string error() const;

 private:
  const std::string* find(std::string_view name);
  void refuse(std::string_view name, std::string_view value, const std::string& wanted);

  std::map<std::string, std::string, std::less<>> values_;
  std::vector<std::string> asked_;
  std::string error_;
};

}  // namespace tandem::kxo
