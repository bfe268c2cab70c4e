// SPDX-License-Identifier: Apache-2.0
#include "bench/kxo_boards.hpp"

#include <algorithm>
#include <bit>
#include <ctime>
#include <thread>
#include <utility>

#include "bench/harness.hpp"
#include "bench/memory.hpp"
#include "tandem/base/check.hpp"

namespace tandem::bench {
namespace {

using wd::kxo::Player;

constexpr std::chrono::microseconds kNothingThere{50};

double process_cpu_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

}  // namespace

Boards::Boards(wd::Path path, std::size_t count, wd::kxo::Setup setup)
    : device_(wd::kxo::Device::open({.path = path}).value()) {
  boards_.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    setup.seed = i;
    boards_.push_back(device_.add(setup).value());
  }
}

std::uint64_t Boards::read_all() {
  std::uint64_t count = 0;
  for (auto& board : boards_) {
    while (board.read()) ++count;
  }
  return count;
}

double Boards::moves_per_second(std::chrono::milliseconds length) {
  read_all();
  const auto start = now_ns();
  const auto end = start + std::chrono::nanoseconds(length).count();
  std::uint64_t count = 0;
  do {
    const std::uint64_t read = read_all();
    count += read;
    if (read != 0) continue;
    if (boards_.size() == 1) {
      count += boards_.front().wait().has_value();
    } else {
      std::this_thread::sleep_for(kNothingThere);
    }
  } while (now_ns() < end);
  return static_cast<double>(count) * 1e9 / static_cast<double>(now_ns() - start);
}

double Boards::cpu_ns_per_move(int count) {
  std::uint64_t made = 0;
  const auto start = cpu_ns();
  while (made < static_cast<std::uint64_t>(count)) {
    for (auto& board : boards_) made += board.wait().has_value();
  }
  return static_cast<double>(cpu_ns() - start) / static_cast<double>(made);
}

double Boards::cpu_ns_per_id(int count) {
  const auto start = cpu_ns();
  for (int i = 0; i < count; ++i) (void)device_.add({}).value();
  return static_cast<double>(cpu_ns() - start) / count;
}

/// The board as far as it was read: `stones` are the cells that are taken.
wd::kxo::Move Boards::follow(std::uint64_t& stones) {
  const auto move = boards_.front().wait().value();
  stones = move.over ? 0 : stones | std::uint64_t{1} << move.cell;
  return move;
}

Boards::Latency Boards::answers(int count, std::chrono::microseconds pause) {
  auto& board = boards_.front();
  const auto now = board.skip_to_now().value();
  std::uint64_t stones = now.over != 0 ? 0 : now.o | now.x;
  std::vector<double> times;
  while (times.size() < static_cast<std::size_t>(count)) {
    if (pause.count() != 0) std::this_thread::sleep_for(pause);
    const auto start = now_ns();
    board.play(std::countr_one(stones)).value();
    // After a move of ours that ends a game we begin the next one.
    if (follow(stones).over) continue;
    (void)follow(stones);
    times.push_back(static_cast<double>(now_ns() - start) / 1e3);
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times[times.size() * 99 / 100]};
}

double idle_percent(std::size_t boards, std::chrono::milliseconds length) {
  const Boards waiting(wd::Path::kEmbedded, boards, {.o = Player::kUser, .x = Player::kRandom});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const double before = process_cpu_seconds();
  std::this_thread::sleep_for(length);
  const double seconds = std::chrono::duration<double>(length).count();
  return 100 * (process_cpu_seconds() - before) / seconds;
}

double bytes_per_board(std::size_t boards) {
  const wd::kxo::Setup setup{.o = Player::kUser, .x = Player::kRandom};
  const Boards first(wd::Path::kEmbedded, boards, setup);
  const double before = held_bytes("Pss");
  const Boards more(wd::Path::kEmbedded, boards, setup);
  return (held_bytes("Pss") - before) / static_cast<double>(boards);
}

}  // namespace tandem::bench
