// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>

#include "tandem/base/mutex.hpp"

namespace tandem::pcie::detail {

/// Calls a function at a time. Its thread exists from the first time that is set on, and sleeps
/// while none is.
///
/// Thread safety: set() from any thread, also from the function; its mutex is a leaf.
class Alarm {
 public:
  using Clock = std::chrono::steady_clock;

  /// `ring`: what to call. It returns when to call it next, unless set() says so before.
  explicit Alarm(std::function<std::optional<Clock::time_point>()> ring) : ring_(std::move(ring)) {}
  ~Alarm() { stop(); }

  /// Calls at `when`, if it is not to be called before that anyway. Ignored after stop(). Where no
  /// thread can be started nothing is called until one can, when it is set again. Takes no memory.
  void set(Clock::time_point when);
  /// When it returns, the function does not run and is not going to.
  void stop();

 private:
  static void* thread_main(void* self);
  void run();
  std::optional<std::chrono::nanoseconds> left_locked() const TANDEM_REQUIRES(mutex_);

  const std::function<std::optional<Clock::time_point>()> ring_;
  Mutex mutex_;
  std::optional<Clock::time_point> when_ TANDEM_GUARDED_BY(mutex_);
  bool stopped_ TANDEM_GUARDED_BY(mutex_) = false;
  std::atomic<std::uint32_t> changes_{0};  // raised under mutex_; what the thread sleeps on
  std::optional<pthread_t> thread_ TANDEM_GUARDED_BY(mutex_);  // joined by stop()
};

}  // namespace tandem::pcie::detail
