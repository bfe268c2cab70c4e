// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/checked_boards.hpp"

#include <thread>

#include "apps/tandem/games_device.hpp"

namespace tandem::cli {
namespace {

constexpr int kMostAtOnce = 256;  // more than a ring holds

}  // namespace

std::string title_of(const Pairing& pairing) {
  return fmt::format("{} - {}", name_of(pairing.o), name_of(pairing.x));
}

void Score::count(const wd::kxo::Move& move) {
  if (move.over) ++(move.draw ? draws : move.x ? x_wins : o_wins);
}

Score& Score::operator+=(const Score& other) {
  o_wins += other.o_wins;
  x_wins += other.x_wins;
  draws += other.draws;
  return *this;
}

std::optional<Failure> CheckedBoards::add(const Pairing& pairing, std::uint32_t work) {
  auto board = device_.add({.o = pairing.o, .x = pairing.x, .work = work, .seed = boards_.size()});
  if (!board) return Failure{kFailure, fmt::format("adding a board: {}", board.error().hint)};
  boards_.push_back({pairing, std::move(*board), Referee(4, 4, 3), {}});
  return std::nullopt;
}

/// Not for ever where agents move whenever we look.
Result<int, Failure> CheckedBoards::take(std::size_t i) {
  CheckedBoard& its = boards_[i];
  int taken = 0;
  for (; taken < kMostAtOnce; ++taken) {
    const auto move = its.board.read();
    if (!move) {
      const wd::Code code = move.error().code;
      if (code == wd::Code::kBusy || code == wd::Code::kWrongTurn) break;
      return Unexpected{Failure{kFailure, fmt::format("reading a move: {}", move.error().hint)}};
    }
    if (const std::string wrong = its.referee.check(*move); !wrong.empty()) {
      return Unexpected{
          Failure{kFailure, fmt::format("board {} ({}): {}", i + 1, title_of(its.pairing), wrong)}};
    }
    its.score.count(*move);
  }
  return taken;
}

Result<int, Failure> CheckedBoards::take(std::size_t from, std::size_t to) {
  int taken = 0;
  for (std::size_t i = from; i < to; ++i) {
    const auto some = take(i);
    if (!some) return Unexpected{some.error()};
    taken += *some;
  }
  if (taken == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
  return taken;
}

std::optional<Failure> CheckedBoards::set_players(std::size_t i, const Pairing& players) {
  if (const auto set = boards_[i].board.set_players(players.o, players.x); !set) {
    return Failure{kFailure, fmt::format("setting who plays: {}", set.error().hint)};
  }
  return std::nullopt;
}

std::optional<Failure> CheckedBoards::hold(std::size_t from, std::size_t to) {
  constexpr Pairing kNobody{wd::kxo::Player::kUser, wd::kxo::Player::kUser};
  for (std::size_t i = from; i < to; ++i) {
    if (auto failure = set_players(i, kNobody)) return failure;
  }
  const auto taken = take(from, to);
  return taken ? std::nullopt : std::optional(taken.error());
}

std::uint64_t CheckedBoards::moves_checked() const {
  std::uint64_t moves = 0;
  for (const CheckedBoard& board : boards_) moves += board.referee.moves();
  return moves;
}

}  // namespace tandem::cli
