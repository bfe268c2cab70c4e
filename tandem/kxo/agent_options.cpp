// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/agent_options.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "tandem/kxo/detail/text.hpp"

namespace tandem::kxo {
namespace {

using detail::parse_number;
using detail::quoted;
using detail::shortest;

/// The options of `text` one by one, without the backslashes before commas.
std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> options;
  if (text.empty()) return options;
  options.emplace_back();
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == ',') {
      options.emplace_back();
    } else {
      if (text[i] == '\\' && i + 1 < text.size()) ++i;
      options.back() += text[i];
    }
  }
  return options;
}

/// "1ms": the greatest unit that leaves a whole number.
std::string time_text(std::chrono::nanoseconds time) {
  constexpr std::pair<std::int64_t, const char*> kUnits[] = {
      {1'000'000'000, "s"}, {1'000'000, "ms"}, {1'000, "us"}};
  for (const auto& [ns, unit] : kUnits) {
    if (time.count() % ns == 0) return std::to_string(time.count() / ns) + unit;
  }
  return std::to_string(time.count()) + "ns";
}

}  // namespace

Result<std::chrono::nanoseconds, std::string> parse_time(std::string_view text) {
  constexpr std::pair<std::string_view, double> kUnits[] = {
      {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
  for (const auto& [unit, ns] : kUnits) {
    double number = 0;
    if (!text.ends_with(unit)) continue;
    if (!parse_number(text.substr(0, text.size() - unit.size()), number)) continue;
    if (number >= 0 && number * ns <= 86'400e9) {
      return std::chrono::nanoseconds(std::llround(number * ns));
    }
  }
  return Unexpected{quoted(text) + " is not a time of at most a day, such as 500us, 1ms or 2s"};
}

Result<AgentOptions, std::string> AgentOptions::parse(std::string_view text) {
  AgentOptions options;
  for (const std::string& option : split(text)) {
    const std::size_t equals = option.find('=');
    if (equals == std::string::npos || equals == 0) {
      return Unexpected{quoted(option) + " is no NAME=VALUE"};
    }
    const std::string name = option.substr(0, equals);
    if (!options.values_.try_emplace(name, option.substr(equals + 1)).second) {
      return Unexpected{"option " + quoted(name) + " is given twice"};
    }
  }
  return options;
}

std::uint64_t AgentOptions::number(std::string_view name, std::uint64_t fallback,
                                   std::uint64_t least, std::uint64_t most) {
  const std::string* const text = find(name, fallback < least ? "N" : std::to_string(fallback));
  if (text == nullptr) return fallback;
  std::uint64_t number = 0;
  if (parse_number(*text, number) && number >= least && number <= most) return number;
  refuse(name, quoted(*text) + " is not a number in [" + std::to_string(least) + ", " +
                   std::to_string(most) + "]");
  return fallback;
}

double AgentOptions::real(std::string_view name, double fallback, double least, double most) {
  const std::string* const text = find(name, shortest(fallback));
  if (text == nullptr) return fallback;
  double number = 0;
  if (parse_number(*text, number) && number >= least && number <= most) return number;
  refuse(name,
         quoted(*text) + " is not a number in [" + shortest(least) + ", " + shortest(most) + "]");
  return fallback;
}

std::chrono::nanoseconds AgentOptions::time(std::string_view name,
                                            std::chrono::nanoseconds fallback) {
  const std::string* const text = find(name, fallback.count() == 0 ? "TIME" : time_text(fallback));
  if (text == nullptr) return fallback;
  const auto time = parse_time(*text);
  if (time) return *time;
  refuse(name, time.error());
  return fallback;
}

std::string AgentOptions::text(std::string_view name, std::string_view fallback) {
  const std::string* const text = find(name, fallback.empty() ? "TEXT" : fallback);
  return text != nullptr ? *text : std::string(fallback);
}

std::string AgentOptions::error() const {
  if (!error_.empty()) return error_;
  for (const auto& given : values_) {
    const std::string& name = given.first;
    const auto same = [&](const Known& option) { return option.name == name; };
    if (std::any_of(known_.begin(), known_.end(), same)) continue;
    std::string names;
    for (const Known& option : known_) names += (names.empty() ? "" : ", ") + option.name;
    return "no option " + quoted(name) +
           (names.empty() ? "; there are none" : "; there are: " + names);
  }
  return {};
}

const std::string* AgentOptions::find(std::string_view name, std::string_view fallback) {
  known_.push_back({std::string(name), std::string(fallback)});
  const auto found = values_.find(name);
  return found != values_.end() ? &found->second : nullptr;
}

void AgentOptions::refuse(std::string_view name, const std::string& why) {
  if (error_.empty()) error_ = "option " + std::string(name) + ": " + why;
}

}  // namespace tandem::kxo
