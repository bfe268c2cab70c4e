// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/pairing_costs.hpp"

#include <algorithm>
#include <chrono>

namespace tandem::cli {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kAlone{120};      // each pairing
constexpr milliseconds kTogether{1200};  // all of them
constexpr std::uint32_t kWork = 1000;    // nodes or iterations of a move

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

std::optional<double> PairingCosts::cpu_seconds_since(std::optional<double> before) const {
  const auto now = cpu_seconds_();  // nothing when the device has ended meanwhile
  return now && before ? std::optional(*now - *before) : std::nullopt;
}

std::optional<Failure> PairingCosts::measure(std::size_t pairing) {
  const std::size_t first = boards_.size();
  for (unsigned i = 0; i < boards_each_; ++i) {
    if (auto failure = boards_.add(pairings_[pairing], kWork)) return failure;
  }
  const auto all_moved = [&] {
    for (std::size_t i = first; i < boards_.size(); ++i) {
      if (boards_[i].referee.moves() <= 1) return false;
    }
    return true;
  };
  // Some agents learn, or solve the game, before their first move.
  const auto patience = Clock::now() + CheckedBoards::kPatience;
  while (!all_moved()) {
    if (const auto taken = boards_.take(first, boards_.size()); !taken) return taken.error();
    if (Clock::now() > patience) {
      return Failure{kFailure, title_of(pairings_[pairing]) + ": no move within five minutes"};
    }
  }
  Cost& cost = alone_[pairing];
  const auto start = Clock::now();
  const auto cpu = cpu_seconds_();
  while (Clock::now() < start + kAlone) {
    const auto taken = boards_.take(first, boards_.size());
    if (!taken) return taken.error();
    cost.moves += *taken;
  }
  cost.cpu_seconds = cpu_seconds_since(cpu);
  cost.seconds = seconds_since(start);
  return boards_.hold(first, boards_.size());
}

std::optional<Failure> PairingCosts::measure_each(unsigned boards_each) {
  boards_each_ = boards_each;
  for (std::size_t i = 0; i < pairings_.size(); ++i) {
    if (auto failure = measure(i)) return failure;
  }
  fmt::print("   {} pairings of {} boards, for {} ms each and then held; now all together\n",
             pairings_.size(), boards_each_, kAlone.count());
  std::fflush(stdout);
  return std::nullopt;
}

std::optional<Failure> PairingCosts::measure_together() {
  const std::uint64_t moves = boards_.moves_checked();
  std::vector<std::uint64_t> games;
  for (std::size_t i = 0; i < boards_.size(); ++i) {
    games.push_back(boards_[i].score.games());
    if (auto failure = boards_.set_players(i, boards_[i].pairing)) return failure;
  }
  const auto every_board_ended_a_game = [&] {
    for (std::size_t i = 0; i < games.size(); ++i) {
      if (boards_[i].score.games() == games[i]) return false;
    }
    return true;
  };
  const auto start = Clock::now();
  const auto cpu = cpu_seconds_();
  while (Clock::now() < start + kTogether || !every_board_ended_a_game()) {
    if (const auto taken = boards_.take(0, boards_.size()); !taken) return taken.error();
    if (Clock::now() > start + CheckedBoards::kPatience) {
      return Failure{kFailure, "a board did not end a game within five minutes"};
    }
  }
  together_.cpu_seconds = cpu_seconds_since(cpu);
  together_.seconds = seconds_since(start);
  together_.moves = static_cast<double>(boards_.moves_checked() - moves);
  return std::nullopt;
}

void PairingCosts::print() const {
  const auto rate = [](const Cost& cost) {
    return human_count(static_cast<std::uint64_t>(cost.moves / cost.seconds));
  };
  Table text({"O - X", "games", "O wins", "X wins", "draws", "moves/s", "CPU/move"});
  for (std::size_t i = 0; i < pairings_.size(); ++i) {
    Score sum;
    for (unsigned j = 0; j < boards_each_; ++j) sum += boards_[i * boards_each_ + j].score;
    const auto share = [&](std::uint64_t games) {
      return fmt::format("{:.1f} %",
                         100.0 * static_cast<double>(games) /
                             static_cast<double>(std::max<std::uint64_t>(sum.games(), 1)));
    };
    const Cost& cost = alone_[i];
    const std::string cpu_per_move =
        cost.cpu_seconds && cost.moves > 0
            ? human_time(std::chrono::nanoseconds(
                  static_cast<std::int64_t>(*cost.cpu_seconds / cost.moves * 1e9)))
            : "-";
    text.add({title_of(pairings_[i]), human_count(sum.games()), share(sum.o_wins),
              share(sum.x_wins), share(sum.draws), rate(cost), cpu_per_move});
  }
  fmt::print("\n");
  text.print();
  fmt::print("moves/s and the device's CPU: a pairing's {} boards alone.\n", boards_each_);
  fmt::print("All {} at once: {} moves/s", boards_.size(), rate(together_));
  if (together_.cpu_seconds) {
    fmt::print(", the device used {:.2f} CPUs", *together_.cpu_seconds / together_.seconds);
  }
  fmt::print(".\n");
  std::fflush(stdout);
}

}  // namespace tandem::cli
