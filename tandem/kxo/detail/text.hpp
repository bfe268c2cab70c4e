// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <charconv>
#include <string>
#include <string_view>
#include <system_error>

namespace tandem::kxo::detail {

/// `text` as a whole as a number; false when it is none.
template <class T>
bool parse_number(std::string_view text, T& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

inline std::string quoted(std::string_view text) {
  std::string result = "'";
  return result.append(text).append(1, '\'');
}

/// The fewest digits that are read as `number` again.
inline std::string shortest(double number) {
  char digits[32];
  return {digits, std::to_chars(digits, digits + sizeof digits, number).ptr};
}

}  // namespace tandem::kxo::detail
