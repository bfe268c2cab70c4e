// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

namespace tandem::broker {

/// Threads for work that may wait for a client's memory or for a device: never the control thread.
///
/// Grows on demand: a task waits for another one only at the limits below. A task that never
/// returns costs its thread, not the others': one account occupies at most `threads_per_account` of
/// them, the rest of its tasks wait their turn. Thread safety: run() from any thread.
class Lane {
 public:
  struct Options {
    unsigned threads_max = 64;
    unsigned threads_per_account = 8;
  };
  /// Starts the first thread, so that tasks get done however few threads the system lets us have
  /// later on.
  explicit Lane(Options options);
  ~Lane();  ///< stop(0)

  /// Whether the first thread could be started; without it run() may wait for ever.
  bool ready() const { return ready_; }

  /// Runs `task` on some thread, as one of `account`'s; it throws nothing. Ignored after stop().
  /// Errors: std::bad_alloc, and it is not run. What it takes later on is there by then.
  void run(std::uint32_t account, std::function<void()> task);

  /// Takes no more tasks, finishes those it has, and waits for them for at most `patience`.
  /// Returns: false when one still runs; what it uses must then stay.
  bool stop(std::chrono::milliseconds patience);

 private:
  struct State;
  static bool start_thread_locked(const std::shared_ptr<State>& state);
  static void work(const std::shared_ptr<State>& state);
  std::shared_ptr<State> state_;
  bool ready_ = false;
};

}  // namespace tandem::broker
