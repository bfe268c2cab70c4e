// SPDX-License-Identifier: Apache-2.0
/// What the kxo benchmarks measure through the device. The client is one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "tandem/wd/kxo.hpp"

namespace tandem::bench {

/// Boards of one queue.
class Boards {
 public:
  /// `count` boards that are set up alike, with seeds of their own.
  Boards(wd::Path path, std::size_t count, wd::kxo::Setup setup);

  /// Moves a second that the client reads: it takes what is there, board after board. Where
  /// there is nothing it waits for its only board, or looks again soon.
  double moves_per_second(std::chrono::milliseconds length);
  /// Nanoseconds of CPU time of the calling thread for each of at least `count` moves: where the
  /// caller runs the device, all that a move costs.
  double cpu_ns_per_move(int count);

  /// Nanoseconds of CPU time of the calling thread for a board more that comes and goes.
  double cpu_ns_per_id(int count);

  struct Latency {
    double median_us = 0, p99_us = 0;
  };
  /// From before the client's move, until the agent's answer is read, on the first board, whose
  /// players are the client and an agent. An answer comes `pause` after the last one was read.
  Latency answers(int count, std::chrono::microseconds pause);

 private:
  std::uint64_t read_all();
  wd::kxo::Move follow(std::uint64_t& stones);

  wd::kxo::Device device_;
  std::vector<wd::kxo::Board> boards_;
};

/// Percent of a core that this process uses while `boards` boards wait for their client.
double idle_percent(std::size_t boards, std::chrono::milliseconds length);

/// Bytes by which this process, client and device, grows for a board, its ring included.
double bytes_per_board(std::size_t boards);

}  // namespace tandem::bench
