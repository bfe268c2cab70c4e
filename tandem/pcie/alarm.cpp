// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/alarm.hpp"

#include <algorithm>
#include <utility>

#include "tandem/base/background_thread.hpp"
#include "tandem/base/futex.hpp"

namespace tandem::pcie::detail {

void Alarm::set(Clock::time_point when) {
  const MutexLock lock(mutex_);
  if (stopped_) return;
  if (!when_ || when < *when_) {
    when_ = when;
    changes_.fetch_add(1, std::memory_order_relaxed);
    futex_wake(changes_);
  }
  pthread_t thread;
  if (!thread_ && start_background_thread(thread, "alarm", 0, &thread_main, this) == 0) {
    thread_ = thread;
  }
}

void Alarm::stop() {
  std::optional<pthread_t> thread;
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
    changes_.fetch_add(1, std::memory_order_relaxed);
    futex_wake(changes_);
    thread = std::exchange(thread_, std::nullopt);
  }
  if (thread) ::pthread_join(*thread, nullptr);
}

void* Alarm::thread_main(void* self) {
  static_cast<Alarm*>(self)->run();
  return nullptr;
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
