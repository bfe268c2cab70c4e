// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "apps/tandem/checked_boards.hpp"

namespace tandem::cli {

/// What moves cost where agents play each other on many boards: each pairing alone, then all
/// together. Thread safety: one thread.
class PairingCosts {
 public:
  /// Of the device, so far; nothing where nobody knows.
  using CpuSeconds = std::function<std::optional<double>()>;

  /// `boards`, which are none yet, and `pairings` have to outlive this.
  PairingCosts(CheckedBoards& boards, std::span<const Pairing> pairings, CpuSeconds cpu_seconds)
      : boards_(boards),
        pairings_(pairings),
        cpu_seconds_(std::move(cpu_seconds)),
        alone_(pairings.size()) {}

  /// Adds `boards_each` boards for each pairing, which play for a while and are held then.
  std::optional<Failure> measure_each(unsigned boards_each);
  /// Has all of them go on, until each one has ended a game.
  std::optional<Failure> measure_together();
  /// On standard output.
  void print() const;

 private:
  struct Cost {
    double seconds = 0, moves = 0;
    std::optional<double> cpu_seconds;
  };
  std::optional<Failure> measure(std::size_t pairing);
  std::optional<double> cpu_seconds_since(std::optional<double> before) const;

  CheckedBoards& boards_;
  std::span<const Pairing> pairings_;
  const CpuSeconds cpu_seconds_;
  unsigned boards_each_ = 0;
  std::vector<Cost> alone_;
  Cost together_;
};

}  // namespace tandem::cli
