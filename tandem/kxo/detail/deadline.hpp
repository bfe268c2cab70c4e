// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

namespace tandem::kxo::detail {

/// When a move's time is up: at a time, or when somebody says so.
class Deadline {
 public:
  /// Never.
  Deadline() = default;
  /// `time` from now, or not at any time when it is zero; and once `stop`, if any, is true.
  explicit Deadline(std::chrono::nanoseconds time, const std::atomic<bool>* stop = nullptr)
      : stop_(stop) {
    if (time.count() != 0) at_ = std::chrono::steady_clock::now() + time;
  }
  bool passed() const noexcept {
    if (stop_ != nullptr && stop_->load(std::memory_order_relaxed)) return true;
    return at_ != kNever && std::chrono::steady_clock::now() >= at_;
  }

  /// For poll(): milliseconds after which to look at passed() again, rounded up; -1 is for ever.
  int poll_timeout() const noexcept {
    const int most = stop_ != nullptr ? kLookMs : 1 << 30;
    if (at_ == kNever) return stop_ != nullptr ? most : -1;
    const auto left = at_ - std::chrono::steady_clock::now();
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
    return static_cast<int>(std::clamp<std::int64_t>(ms, 0, most));
  }

 private:
  static constexpr auto kNever = std::chrono::steady_clock::time_point::max();
  static constexpr int kLookMs = 20;  // what is stopped is noticed that soon
  std::chrono::steady_clock::time_point at_ = kNever;
  const std::atomic<bool>* stop_ = nullptr;
};

}  // namespace tandem::kxo::detail
