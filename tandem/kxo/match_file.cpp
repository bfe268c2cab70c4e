// SPDX-License-Identifier: Apache-2.0
// A match in a file: lines of text.
//
//   tandem kxo match 1
//   game 7x7-5
//   player mcts:threads=2          one line each, at least two
//   pairs 100
//   opening 4                      random moves
//   time 1000000                   ns a move; 0 is no limit
//   work 0
//   seed 1
//   sprt 0 20 0.05 0.05            elo0, elo1, alpha, beta; not without a test
//   games 2
//   d4 c3 e5 …                     a line for each, its moves in turn
//   d4 c3 e5 ! Broken pipe         who was to move failed
//   sum 0123456789abcdef           FNV-1a, 64 bit, of all lines before
#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "tandem/kxo/detail/text.hpp"
#include "tandem/kxo/match.hpp"
#include "tandem/kxo/notation.hpp"
#include "tandem/kxo/whole_file.hpp"

namespace tandem::kxo {
namespace {

using detail::parse_number;
using detail::shortest;

constexpr std::string_view kMagic = "tandem kxo match ";
constexpr std::string_view kVersion = "1";
constexpr std::uint64_t kMostBytes = std::uint64_t{4} << 30;

std::string hexadecimal(std::uint64_t number) {
  std::string digits(16, '0');
  for (std::size_t i = 16; i-- > 0; number >>= 4) digits[i] = "0123456789abcdef"[number & 15];
  return digits;
}

/// Takes a text apart, line by line.
class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text) {}

  /// The next one, without its end.
  std::string_view next() {
    const std::string_view line = rest_.substr(0, rest_.find('\n'));
    rest_.remove_prefix(std::min(line.size() + 1, rest_.size()));
    return line;
  }
  /// What follows NAME and a space, if the next line begins so; then that line is taken.
  std::optional<std::string_view> value(std::string_view name) {
    const bool named = rest_.starts_with(name) && rest_.substr(name.size()).starts_with(' ');
    if (!named) return std::nullopt;
    return next().substr(name.size() + 1);
  }
  template <class T>
  bool number(std::string_view name, T& number) {
    const auto text = value(name);
    return text && parse_number(*text, number);
  }
  bool empty() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

std::optional<Sprt> parse_sprt(std::string_view text) {
  std::array<double, 4> numbers{};
  for (double& number : numbers) {
    const std::string_view word = text.substr(0, text.find(' '));
    if (!parse_number(word, number)) return std::nullopt;
    text.remove_prefix(std::min(word.size() + 1, text.size()));
  }
  return Sprt{numbers[0], numbers[1], numbers[2], numbers[3]};
}

std::optional<MatchSettings> parse_settings(Lines& lines) {
  MatchSettings settings;
  const auto rules = parse_game(lines.value("game").value_or(""));
  if (!rules) return std::nullopt;
  settings.rules = *rules;
  while (const auto player = lines.value("player")) settings.players.emplace_back(*player);
  std::int64_t time_ns = 0;
  const bool all = lines.number("pairs", settings.pairs) &&
                   lines.number("opening", settings.opening_plies) &&
                   lines.number("time", time_ns) && lines.number("work", settings.budget.work) &&
                   lines.number("seed", settings.seed);
  if (!all || time_ns < 0) return std::nullopt;
  settings.budget.time = std::chrono::nanoseconds(time_ns);
  if (const auto test = lines.value("sprt")) {
    settings.sprt = parse_sprt(*test);
    if (!settings.sprt) return std::nullopt;
  }
  return settings;
}

std::optional<GameRecord> parse_game_record(const Rules& rules, std::string_view line) {
  GameRecord record;
  while (!line.empty()) {
    if (line.starts_with("! ")) {
      record.failure = line.substr(2);
      break;
    }
    const std::string_view word = line.substr(0, line.find(' '));
    const auto cell = parse_cell(rules, word);
    if (!cell) return std::nullopt;
    record.cells.push_back(static_cast<std::uint8_t>(*cell));
    line.remove_prefix(std::min(word.size() + 1, line.size()));
  }
  return record;
}

}  // namespace

Result<void, std::string> save_match(const std::string& path, const Match& match) {
  const MatchSettings& settings = match.settings();
  std::string text = std::string(kMagic) + std::string(kVersion) + "\n";
  const auto add = [&](std::string_view name, const std::string& value) {
    text.append(name).append(1, ' ').append(value).append(1, '\n');
  };
  add("game", game_name(settings.rules));
  for (const std::string& player : settings.players) add("player", player);
  add("pairs", std::to_string(settings.pairs));
  add("opening", std::to_string(settings.opening_plies));
  add("time", std::to_string(settings.budget.time.count()));
  add("work", std::to_string(settings.budget.work));
  add("seed", std::to_string(settings.seed));
  if (const auto& test = settings.sprt) {
    add("sprt", shortest(test->elo0) + " " + shortest(test->elo1) + " " + shortest(test->alpha) +
                    " " + shortest(test->beta));
  }
  add("games", std::to_string(match.games().size()));
  for (const GameRecord& game : match.games()) {
    std::string line;
    for (const std::uint8_t cell : game.cells) {
      if (!line.empty()) line += ' ';
      line += cell_name(settings.rules, cell);
    }
    if (!game.failure.empty()) line.append(line.empty() ? "! " : " ! ").append(game.failure);
    text.append(line).append(1, '\n');
  }
  add("sum", hexadecimal(fnv1a(text)));
  return write_whole_file(path, text);
}

Result<Match, std::string> load_match(const std::string& path) {
  const auto fail = [&](const std::string& why) { return Unexpected{path + ": " + why}; };
  const auto text = read_whole_file(path, kMostBytes, kMagic);
  if (!text) return Unexpected{text.error()};
  if (!text->starts_with(kMagic)) return fail("is no match of kxo");
  Lines lines(*text);
  const std::string_view version = lines.next().substr(kMagic.size());
  if (lines.empty()) return fail("is cut short");
  if (version != kVersion) return fail("has version " + std::string(version) + ", known is 1");
  const std::size_t end = text->rfind("sum ");
  if (end == std::string::npos || text->back() != '\n') return fail("is cut short");
  const std::string_view sum = std::string_view(*text).substr(end);
  if (sum != "sum " + hexadecimal(fnv1a(std::string_view(*text).substr(0, end))) + "\n") {
    return fail("is damaged");
  }
  auto settings = parse_settings(lines);
  std::uint64_t games = 0;
  if (!settings || !lines.number("games", games) || games % 2 != 0) return fail("is damaged");
  auto match = Match::make(std::move(*settings));
  if (!match) return fail(match.error());
  const Rules& rules = match->settings().rules;
  for (std::uint64_t i = 0; i < games; i += 2) {
    auto first = parse_game_record(rules, lines.next());
    auto second = parse_game_record(rules, lines.next());
    if (!first || !second) return fail("is damaged");
    if (const auto taken = match->append(std::move(*first), std::move(*second)); !taken) {
      return fail(taken.error());
    }
  }
  if (!lines.value("sum") || !lines.empty()) return fail("is damaged");
  return match;
}

}  // namespace tandem::kxo
