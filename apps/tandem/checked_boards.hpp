// SPDX-License-Identifier: Apache-2.0
/// Boards of the device whose every move goes by a referee.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/tandem/cli.hpp"
#include "apps/tandem/referee.hpp"
#include "tandem/base/result.hpp"
#include "tandem/wd/kxo.hpp"

namespace tandem::cli {

/// Two agents of the device.
struct Pairing {
  wd::kxo::Player o, x;
};
/// "random - mcts".
std::string title_of(const Pairing& pairing);

struct Score {
  std::uint64_t o_wins = 0, x_wins = 0, draws = 0;

  std::uint64_t games() const { return o_wins + x_wins + draws; }
  /// A game's last move; others change nothing.
  void count(const wd::kxo::Move& move);
  Score& operator+=(const Score& other);
};

/// A board and what was seen of it.
struct CheckedBoard {
  Pairing pairing;
  wd::kxo::Board board;
  Referee referee;
  Score score;
};

/// Numbers are those of boards, in the order in which they were added; ranges are [from, to). A
/// move that breaks the rules is a failure.
/// Thread safety: one thread.
class CheckedBoards {
 public:
  /// Of something that is waited for: five minutes, which only what is broken takes. Agents that
  /// learn take a minute under a sanitizer, where others have the CPUs too.
  static constexpr std::chrono::seconds kPatience{300};

  /// `device` has to outlive this.
  explicit CheckedBoards(wd::kxo::Device& device) : device_(device) {}

  /// A board of 4x4-3, on which `pairing` begins to play.
  std::optional<Failure> add(const Pairing& pairing, std::uint32_t work);
  std::size_t size() const { return boards_.size(); }
  CheckedBoard& operator[](std::size_t i) { return boards_[i]; }
  const CheckedBoard& operator[](std::size_t i) const { return boards_[i]; }

  /// Takes the moves that are there; lets the device have the CPU when there are none. Returns: how
  /// many.
  Result<int, Failure> take(std::size_t from, std::size_t to);
  std::optional<Failure> set_players(std::size_t i, const Pairing& players);
  /// Stops boards where they are and takes what they have published.
  std::optional<Failure> hold(std::size_t from, std::size_t to);
  /// Over all boards and games.
  std::uint64_t moves_checked() const;

 private:
  Result<int, Failure> take(std::size_t i);

  wd::kxo::Device& device_;
  std::vector<CheckedBoard> boards_;
};

}  // namespace tandem::cli
