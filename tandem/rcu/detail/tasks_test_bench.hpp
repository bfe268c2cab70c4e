// SPDX-License-Identifier: Apache-2.0
/// What the tests of the three Tasks flavours share. For tests; not installed.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <thread>

#include "tandem/base/cpu.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/tasks.hpp"
#include "tandem/rcu/tasks_rude.hpp"
#include "tandem/rcu/tasks_trace.hpp"

namespace tandem::rcu::detail {

using namespace std::chrono_literals;

/// How the tests use one flavour: what makes a thread a task, and what it does between regions.
template <class Domain>
struct Flavoured;

template <>
struct Flavoured<tasks_domain> {
  using Task = tasks_domain::task;
  static void between_regions() { tasks_quiescent(); }
  static constexpr const char* kEarly = "rcu-tasks-early";
};

template <>
struct Flavoured<tasks_rude_domain> {
  using Task = tasks_rude_domain::task;
  static void between_regions() { tasks_rude_quiescent(); }
  static constexpr const char* kEarly = "rcu-tasks-rude-early";
};

template <>
struct Flavoured<tasks_trace_domain> {
  struct Task {
    Task() {}
    ~Task() {}
  };
  static void between_regions() {}
  static constexpr const char* kEarly = "rcu-tasks-trace-early";
};

/// Runs on a CPU until `flag` is set, without a system call: what every flavour allows in a region.
inline void spin_until(const std::atomic<bool>& flag) {
  while (!flag.load(std::memory_order_acquire)) cpu_pause();
}

/// A thread that is in a region until told to leave, and then lives until it is told to end.
template <class Domain>
class TaskInRegion {
 public:
  explicit TaskInRegion(Domain& domain)
      : thread_([this, &domain] {
          const typename Flavoured<Domain>::Task task;
          {
            const typename Domain::section section(domain);
            tid_ = static_cast<std::int32_t>(::gettid());
            inside_ = true;
            spin_until(leave_);
          }
          Flavoured<Domain>::between_regions();
          left_ = true;
          while (!end_) {
            Flavoured<Domain>::between_regions();
            cpu_pause();
          }
        }) {
    wait_until([this] { return inside_.load(); });
  }
  ~TaskInRegion() { end(); }
  std::int32_t tid() const { return tid_; }
  void leave() {
    leave_ = true;
    wait_until([this] { return left_.load(); });
  }
  void end() {
    leave_ = true;
    end_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::atomic<std::int32_t> tid_{0};
  std::atomic<bool> inside_{false};
  std::atomic<bool> leave_{false};
  std::atomic<bool> left_{false};
  std::atomic<bool> end_{false};
  std::thread thread_;
};

/// A grace period on a thread of its own.
template <class Domain>
class Updater {
 public:
  explicit Updater(Domain& domain)
      : thread_([this, &domain] {
          begun_ = true;
          domain.synchronize();
          done_ = true;
        }) {}
  ~Updater() { join(); }
  bool done() const { return done_; }
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  /// Whether it is still waiting after a time in which it would long have gone to sleep.
  bool still_waits() const {
    wait_until(begun_);
    std::this_thread::sleep_for(30ms);
    return !done_;
  }

 private:
  std::atomic<bool> begun_{false};
  std::atomic<bool> done_{false};
  std::thread thread_;
};

}  // namespace tandem::rcu::detail
