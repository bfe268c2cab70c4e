// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/option_checks.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <string>
#include <system_error>

namespace tandem::cli {
namespace {

template <class T>
bool parse(const std::string& text, T& number) {
  const char* const end = text.data() + text.size();
  const auto [after, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && after == end;
}

}  // namespace

CLI::Validator whole_number(std::uint64_t least, std::uint64_t most) {
  const auto check = [least, most](std::string& text) {
    std::uint64_t number = 0;
    // CLI11 would take digits after a zero for octal ones.
    const bool decimal = parse(text, number) && text == std::to_string(number);
    if (decimal && number >= least && number <= most) return std::string();
    return fmt::format("'{}' is not a whole number in [{}, {}]", text, least, most);
  };
  return {check, ""};
}

CLI::Validator number_in(double least, double most) {
  const auto check = [least, most](std::string& text) {
    double number = 0;
    if (parse(text, number) && number >= least && number <= most) return std::string();
    return fmt::format("'{}' is not a number in [{}, {}]", text, least, most);
  };
  return {check, ""};
}

CLI::Validator not_empty() {
  const auto check = [](std::string& text) {
    return text.empty() ? std::string("is an empty name") : std::string();
  };
  return {check, ""};
}

}  // namespace tandem::cli
