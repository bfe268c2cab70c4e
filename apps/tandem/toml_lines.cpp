// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/toml_lines.hpp"

#include <algorithm>
#include <optional>

namespace tandem::cli {
namespace {

constexpr std::string_view kBlank = " \t";

bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_';
}

std::string_view without_blanks_before(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(kBlank), text.size()));
  return text;
}

/// Takes a text in quotes: in single ones as it is, in double ones with \" and \\ for " and \.
std::optional<std::string> take_quoted(std::string_view& rest) {
  const char quote = rest.front();
  std::string value;
  for (std::size_t i = 1; i < rest.size(); ++i) {
    if (rest[i] == quote) {
      rest.remove_prefix(i + 1);
      return value;
    }
    if (quote == '"' && rest[i] == '\\') {
      if (++i == rest.size() || (rest[i] != '"' && rest[i] != '\\')) return std::nullopt;
    }
    value += rest[i];
  }
  return std::nullopt;
}

/// Takes a number, true or false; digits may have underscores between them.
std::optional<std::string> take_bare(std::string_view& rest) {
  const std::string_view word = rest.substr(0, rest.find_first_of(" \t#"));
  if (word.empty() || word.find_first_of("\"'[]{},=") != std::string_view::npos) {
    return std::nullopt;
  }
  rest.remove_prefix(word.size());
  std::string value(word);
  if (value.front() != '_' && value.back() != '_') std::erase(value, '_');
  return value;
}

/// What is wrong with a line that is not blank; empty when nothing is.
std::string parse(std::string_view line, TomlLine& into) {
  const auto end = std::find_if_not(line.begin(), line.end(), is_name);
  into.name = std::string(line.begin(), end);
  std::string_view rest = without_blanks_before(line.substr(into.name.size()));
  if (into.name.empty() || !rest.starts_with('=')) return "is not NAME = VALUE";
  rest = without_blanks_before(rest.substr(1));
  const bool is_quoted = rest.starts_with('"') || rest.starts_with('\'');
  const auto value = is_quoted ? take_quoted(rest) : take_bare(rest);
  rest = without_blanks_before(rest);
  if (!value || !(rest.empty() || rest.starts_with('#'))) {
    return "'" + into.name + "' has no text in quotes or number as its value";
  }
  into.value = *value;
  return {};
}

}  // namespace

Result<std::vector<TomlLine>, std::string> parse_toml_lines(std::string_view text) {
  std::vector<TomlLine> lines;
  for (int number = 1; !text.empty(); ++number) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    line = without_blanks_before(line);
    if (line.empty() || line.front() == '#') continue;
    TomlLine& into = lines.emplace_back();
    into.number = number;
    if (const std::string wrong = parse(line, into); !wrong.empty()) {
      return Unexpected{"line " + std::to_string(number) + ": " + wrong};
    }
  }
  return lines;
}

}  // namespace tandem::cli
