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

/// A number with a unit: ns, us, ms or s. Errors: a sentence about what is none, or above a day.
Result<std::chrono::nanoseconds, std::string> parse_time(std::string_view text);

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
  /// As parse_time() reads it.
  std::chrono::nanoseconds time(std::string_view name, std::chrono::nanoseconds fallback);
  std::string text(std::string_view name, std::string_view fallback);

  /// An option that was asked for, and its value where the text has none: "N", "TIME" or "TEXT"
  /// where that is no value.
  struct Known {
    std::string name, fallback;
  };
  /// In the order in which they were asked for.
  const std::vector<Known>& known() const noexcept { return known_; }
  /// The first thing that is wrong, options that nobody asked for included; empty when all is well.
  std::string error() const;

 private:
  const std::string* find(std::string_view name, std::string_view fallback);
  void refuse(std::string_view name, const std::string& why);

  std::map<std::string, std::string, std::less<>> values_;
  std::vector<Known> known_;
  std::string error_;
};

}  // namespace tandem::kxo
