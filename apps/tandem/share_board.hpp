// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

#include "apps/tandem/cli.hpp"
#include "tandem/base/mapping.hpp"
#include "tandem/wd/wd.h"

namespace tandem::cli {

/// Counts of times, by their logarithm, 16 steps to a factor of two: a percentile is exact to 6 %.
///
/// One writer; readers see it grow.
class Histogram {
 public:
  void add(std::chrono::nanoseconds time) {
    const auto value = static_cast<std::uint64_t>(std::max<std::int64_t>(time.count(), 0)) + 16;
    const auto exponent = static_cast<unsigned>(std::bit_width(value)) - 5;
    const std::size_t at = std::size_t{exponent} * 16 + (value >> exponent) % 16;
    counts_[std::min(at, counts_.size() - 1)].fetch_add(1, std::memory_order_relaxed);
  }
  std::chrono::nanoseconds percentile(double fraction) const {
    std::uint64_t total = 0, seen = 0;
    for (const auto& count : counts_) total += count.load(std::memory_order_relaxed);
    const auto rank = static_cast<std::uint64_t>(fraction * static_cast<double>(total));
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i].load(std::memory_order_relaxed);
      if (seen > rank) return std::chrono::nanoseconds(((16 + i % 16) << (i / 16)) - 16);
    }
    return std::chrono::nanoseconds(0);
  }

 private:
  std::array<std::atomic<std::uint32_t>, 768> counts_{};
};

/// What one tenant tells the others and the parent. Written by its own tenant unless said.
struct Seat {
  enum State : std::uint32_t { kEmpty, kReady, kWorking, kDone, kFailed };
  std::atomic<std::uint32_t> state{kEmpty};
  std::atomic<std::int32_t> pid{0};
  std::atomic<std::uint64_t> bytes{0}, blocks{0}, compressed{0};  ///< verified
  std::atomic<std::uint64_t> started_ns{0}, ended_ns{0};
  std::atomic<std::uint64_t> heap_blocks{0}, reserved_blocks{0};
  Histogram latency;
  std::array<std::atomic<std::uint64_t>, 9> stats{};  ///< struct wd_stats, in order
  /// A page of this tenant's that the others do not have mapped.
  std::atomic<std::uint64_t> secret_address{0};
  // What it was told to do on the way, and how that went.
  std::atomic<std::uint32_t> forked{0};
  std::atomic<std::uint64_t> unmapped_address{0}, unmapped_fault{0};
  std::atomic<std::uint64_t> foreign_address{0}, foreign_fault{0};
  std::array<char, 200> error{};  ///< written before state kFailed

  void fail(const std::string& text) {
    std::snprintf(error.data(), error.size(), "%s", text.c_str());
    state.store(kFailed, std::memory_order_release);
  }
  void set_stats(const wd_stats& now) {
    const std::uint64_t values[] = {now.operations,       now.faults,      now.bytes_zero_copy,
                                    now.bytes_copied,     now.page_faults, now.translations,
                                    now.translation_hits, now.staged,      now.rebinds};
    for (std::size_t i = 0; i < stats.size(); ++i) {
      stats[i].store(values[i], std::memory_order_relaxed);
    }
  }
  wd_stats get_stats() const {
    const auto value = [this](std::size_t i) { return stats[i].load(std::memory_order_relaxed); };
    wd_stats now{};
    now.operations = value(0);
    now.faults = value(1);
    now.bytes_zero_copy = value(2);
    now.bytes_copied = value(3);
    now.page_faults = value(4);
    now.translations = value(5);
    now.translation_hits = value(6);
    now.staged = value(7);
    now.rebinds = value(8);
    return now;
  }
};

/// Shared by the tenants of `demo share` and their parent, in a memfd. Zero is its initial state.
struct Board {
  static constexpr unsigned kTenants = 4;
  static constexpr unsigned kSeats = kTenants + 1;  ///< and the forked child
  std::array<Seat, kSeats> seats;
  // The parent's.
  std::atomic<std::uint32_t> go{0}, stop{0};
  std::atomic<std::uint32_t> fork_now{0}, probe_now{0};
  // Everybody's.
  std::atomic<std::uint64_t> next_block{0};
};

inline std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

}  // namespace tandem::cli
