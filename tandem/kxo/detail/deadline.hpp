// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

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

 private:
  static constexpr auto kNever = std::chrono::steady_clock::time_point::max();
  std::chrono::steady_clock::time_point at_ = kNever;
};

}  // namespace tandem::kxo::detail
