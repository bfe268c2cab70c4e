// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>
#include <string_view>

#include "tandem/base/mutex.hpp"

namespace tandem::rcutorture {

/// Grace periods that an element lives through after its removal.
inline constexpr unsigned kStages = 10;

/// What one kind of thread, or one kind of grace period, has done.
struct Line {
  explicit Line(std::string_view what) : name(what) {}
  const std::string name;
  std::atomic<std::uint64_t> operations{0};
  std::atomic<std::uint64_t> grace_periods{0};
  std::atomic<std::uint64_t> callbacks{0};
  std::atomic<std::uint64_t> failures{0};
  std::atomic<unsigned> worst_age{0};
  std::atomic<const char*> first_failure{nullptr};

  void worked(std::uint64_t count = 1) { operations.fetch_add(count, std::memory_order_relaxed); }
  void aged(unsigned age) noexcept {
    unsigned before = worst_age.load(std::memory_order_relaxed);
    while (before < age && !worst_age.compare_exchange_weak(before, age)) {
    }
  }
  /// `what` lives for ever. Async-signal-safe.
  void fail(const char* what) noexcept {
    const char* none = nullptr;
    first_failure.compare_exchange_strong(none, what);
    failures.fetch_add(1);
  }
};

/// What a run has done.
class Tally {
 public:
  /// The line called `name`, made at its first use.
  Line& line(std::string_view name) {
    const MutexLock lock(mutex_);
    for (Line& line : lines_) {
      if (line.name == name) return line;
    }
    return lines_.emplace_back(name);
  }
  std::uint64_t failures() {
    const MutexLock lock(mutex_);
    std::uint64_t sum = 0;
    for (const Line& line : lines_) sum += line.failures.load();
    return sum;
  }
  /// How often an element of each age was seen by a reader.
  std::array<std::atomic<std::uint64_t>, kStages + 1> ages{};

  void print(std::FILE* to, bool all);

 private:
  Mutex mutex_;
  std::deque<Line> lines_ TANDEM_GUARDED_BY(mutex_);
};

}  // namespace tandem::rcutorture
