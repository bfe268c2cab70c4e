// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/alarm.hpp"

#include <algorithm>

#include "tandem/base/background_thread.hpp"
#include "tandem/base/futex.hpp"

namespace tandem::pcie::detail {

void Alarm::set(Clock::time_point when) {
  const MutexLock lock(mutex_);
  if (stopped_ || (when_ && *when_ <= when)) return;
  when_ = when;
  changes_.fetch_add(1, std::memory_order_relaxed);
  futex_wake(changes_);
  if (thread_.joinable()) return;
  const SignalsBlocked blocked;  // those are for the program's threads
  thread_ = std::thread([this] { run(); });
}

void Alarm::stop() {
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
    changes_.fetch_add(1, std::memory_order_relaxed);
    futex_wake(changes_);
  }
  if (thread_.joinable()) thread_.join();
}

std::optional<std::chrono::nanoseconds> Alarm::left_locked() const {
  if (!when_) return std::nullopt;
  return std::max(Clock::duration{0}, *when_ - Clock::now());
}

void Alarm::run() {
  while (true) {
    std::optional<std::chrono::nanoseconds> left;
    std::uint32_t seen = 0;
    {
      const MutexLock lock(mutex_);
      if (stopped_) return;
      left = left_locked();
      seen = changes_.load(std::memory_order_relaxed);
      if (left && left->count() == 0) when_.reset();
    }
    if (!left || left->count() != 0) {
      futex_wait(changes_, seen, left);
    } else if (const auto next = ring_()) {
      set(*next);
    }
  }
}

}  // namespace tandem::pcie::detail
