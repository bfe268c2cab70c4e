// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/agent_options.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

namespace tandem::kxo {
namespace {

/// `text` as a whole as a number; false when it is none.
template <class T>
bool parse_number(std::string_view text, T& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

std::string quoted(std::string_view text) {
  std::string result = "'";
  return result.append(text).append(1, '\'');
}

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

}  // namespace

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
  const std::string* const text = find(name);
  if (text == nullptr) return fallback;
  std::uint64_t number = 0;
  if (parse_number(*text, number) && number >= least && number <= most) return number;
  refuse(name, *text, "a number in [" + std::to_string(least) + ", " + std::to_string(most) + "]");
  return fallback;
}

double AgentOptions::real(std::string_view name, double fallback, double least, double most) {
  const std::string* const text = find(name);
  if (text == nullptr) return fallback;
  double number = 0;
  if (parse_number(*text, number) && number >= least && number <= most) return number;
  std::string wanted = "a number in [";
  char digits[32];
  for (const double bound : {least, most}) {
    wanted.append(digits, std::to_chars(digits, digits + sizeof digits, bound).ptr);
    wanted += bound == least ? ", " : "]";
  }
  refuse(name, *text, wanted);
  return fallback;
}

std::chrono::nanoseconds AgentOptions::time(std::string_view name,
                                            std::chrono::nanoseconds fallback) {
  const std::string* const text = find(name);
  if (text == nullptr) return fallback;
  constexpr std::pair<std::string_view, double> kUnits[] = {
      {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
  for (const auto& [unit, ns] : kUnits) {
    double number = 0;
    if (!text->ends_with(unit)) continue;
    if (!parse_number(std::string_view(*text).substr(0, text->size() - unit.size()), number)) {
      continue;
    }
    if (number >= 0 && number * ns <= 86'400e9) {
      return std::chrono::nanoseconds(std::llround(number * ns));
    }
  }
  refuse(name, *text, "a time of at most a day, such as 500us, 1ms or 2s");
  return fallback;
}

std::string AgentOptions::text(std::string_view name, std::string_view fallback) {
  const std::string* const text = find(name);
  return text != nullptr ? *text : std::string(fallback);
}

std::string AgentOptions::error() const {
  if (!error_.empty()) return error_;
  for (const auto& [name, value] : values_) {
    if (std::find(asked_.begin(), asked_.end(), name) != asked_.end()) continue;
    std::string known;
    for (const std::string& other : asked_) known += (known.empty() ? "" : ", ") + other;
    return "no option " + quoted(name) +
           (known.empty() ? "; there are none" : "; there are: " + known);
  }
  return {};
}

const std::string* AgentOptions::find(std::string_view name) {
  asked_.emplace_back(name);
  const auto found = values_.find(name);
  return found != values_.end() ? &found->second : nullptr;
}

void AgentOptions::refuse(std::string_view name, std::string_view value,
                          const std::string& wanted) {
  if (error_.empty()) {
    error_ = "option " + std::string(name) + ": " + quoted(value) + " is not " + wanted;
  }
}

}  // namespace tandem::kxo
