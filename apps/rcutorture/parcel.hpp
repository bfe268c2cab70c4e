// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "pipe.hpp"
#include "tally.hpp"

namespace tandem::rcutorture {

/// The process that runs: a forked child stores its own number before anything else.
inline std::atomic<pid_t> current_process{0};
/// Callbacks of a parent that ran in this process, its child.
inline std::atomic<std::uint64_t> inherited_callbacks{0};

/// What some callbacks have to do with each other: how many were posted, and how many have run.
struct Ledger {
  explicit Ledger(Line& of) : line(of) {}
  Line& line;
  const pid_t process = current_process.load(std::memory_order_relaxed);
  std::atomic<std::uint64_t> posted{0};
  std::atomic<std::uint64_t> ran{0};

  std::uint64_t waiting() const noexcept {
    const std::uint64_t done = ran.load(std::memory_order_relaxed);
    return posted.load(std::memory_order_relaxed) - done;
  }
  void run_one(bool alive) noexcept {
    if (!alive) line.fail("a callback ran twice, or on something else");
    if (process != current_process.load(std::memory_order_relaxed))
      inherited_callbacks.fetch_add(1);
    line.callbacks.fetch_add(1, std::memory_order_relaxed);
    ran.fetch_add(1, std::memory_order_relaxed);
  }
};

/// Something to be deleted after a grace period, once.
struct Parcel {
  static constexpr std::size_t kBytes = 256;
  explicit Parcel(Ledger& of) : ledger(of) {
    ledger.posted.fetch_add(1, std::memory_order_relaxed);
  }
  Parcel(const Parcel&) = delete;
  Parcel& operator=(const Parcel&) = delete;
  ~Parcel() { ledger.run_one(word.exchange(kPoison, std::memory_order_relaxed) == kAlive); }
  Ledger& ledger;
  std::atomic<std::uint64_t> word{kAlive};
  std::array<std::byte, kBytes - 2 * sizeof(void*)> load{};
};

}  // namespace tandem::rcutorture
