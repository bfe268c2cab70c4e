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
  explicit Lane(Options options);
  ~Lane();  ///< stop(0)

  /// Runs `task` on some thread, as one of `account`'s. Ignored after stop().
  void run(std::uint32_t account, std::function<void()> task);

  /// Takes no more tasks, finishes those it has, and waits for them for at most `patience`.
  /// Returns: false when one still runs; what it uses must then stay.
  bool stop(std::chrono::milliseconds patience);

 private:
  struct State;
  static void work(const std::shared_ptr<State>& state);
  std::shared_ptr<State> state_;
};

}  // namespace tandem::broker
