// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace tandem::kxo::detail {

/// When a move's time is up.
class Deadline {
 public:
  /// Never.
  Deadline() = default;
  /// `time` from now; never, when it is zero.
  explicit Deadline(std::chrono::nanoseconds time) {
    if (time.count() != 0) at_ = std::chrono::steady_clock::now() + time;
  }
  bool passed() const noexcept { return at_ != kNever && std::chrono::steady_clock::now() >= at_; }

  /// For poll(): milliseconds until then, rounded up; -1 is for ever.
  int poll_timeout() const noexcept {
    if (at_ == kNever) return -1;
    const auto left = at_ - std::chrono::steady_clock::now();
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
    return static_cast<int>(std::clamp<std::int64_t>(ms, 0, 1 << 30));
  }

 private:
  static constexpr auto kNever = std::chrono::steady_clock::time_point::max();
  std::chrono::steady_clock::time_point at_ = kNever;
};

}  // namespace tandem::kxo::detail
