// SPDX-License-Identifier: Apache-2.0
/// Games as a file keeps them. A file of games is text; docs/kxo-play.md describes it:
///
///     kxo games 1
///
///     game 4x4-3
///     o perfect
///     x you
///     moves b2 a1 c2 d2 a2
///     result o
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tandem/base/result.hpp"
#include "tandem/kxo/rules.hpp"

namespace tandem::screen {

/// The first line of a file of games, with its line end.
inline constexpr std::string_view kGamesHeader = "kxo games 1\n";

/// A game from its beginning; not all of them are played to the end.
struct GameRecord {
  kxo::Rules rules = kxo::Rules::standard();
  std::string o, x;        ///< who plays: a line of text
  std::vector<int> moves;  ///< cells, all free when their turn came

  /// After the first `plies` moves, or all of them.
  kxo::Position position() const { return position(moves.size()); }
  kxo::Position position(std::size_t plies) const;
  kxo::Outcome outcome() const { return rules.outcome(position()); }
};

/// "O wins", "X wins", "draw" or "open".
std::string_view outcome_name(kxo::Outcome outcome);
/// The cells' names, with a space between them.
std::string move_names(const kxo::Rules& rules, const std::vector<int>& moves);

/// The game as it stands in a file, with an empty line before it. Control characters in names
/// become question marks.
std::string record_text(const GameRecord& game);
/// All games of a file. Every move is checked by the rules, and the results; control characters
/// are refused, so that all of it, and of what is said about it, can be shown on a terminal.
/// Errors: a sentence about the first line that is wrong, with its number.
Result<std::vector<GameRecord>, std::string> parse_games(std::string_view text);

}  // namespace tandem::screen
