// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tally.hpp"

namespace tandem::rcutorture {

/// The threads of a run: they start together, are told to stop, and have to end.
class Team {
 public:
  explicit Team(Tally& tally) : tally_(tally) {}
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  /// A thread that runs `body` once the run begins; `body` returns soon after should_stop().
  void add(std::string name, std::function<void()> body);
  /// Lets the threads run for `time`, then stops and joins them. One that does not end within a
  /// minute more is named, and the process aborts: nothing can be torn down under it.
  void run(std::chrono::duration<double> time);
  bool should_stop() const noexcept { return stop_.load(std::memory_order_relaxed); }

 private:
  struct Member {
    std::string name;
    std::thread thread;
    std::atomic<bool> ended{false};
  };
  bool all_ended() const noexcept;

  Tally& tally_;
  std::vector<std::unique_ptr<Member>> members_;
  std::atomic<bool> start_{false};
  std::atomic<bool> stop_{false};
};

}  // namespace tandem::rcutorture
