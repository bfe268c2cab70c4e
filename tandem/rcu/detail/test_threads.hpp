// SPDX-License-Identifier: Apache-2.0
/// Threads and children that tests of grace periods need. For tests; not installed.
#pragma once

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "tandem/base/check.hpp"
#include "tandem/rcu/detail/reader.hpp"

namespace tandem::rcu::detail {

template <class Condition>
void wait_until(const Condition& condition) {
  while (!condition()) std::this_thread::yield();
}
inline void wait_until(const std::atomic<bool>& flag) {
  while (!flag) std::this_thread::yield();
}

/// While it lives, the thread that made it gets SIGUSR1 again and again, for `handler`.
class Interrupted {
 public:
  Interrupted(void (*handler)(int), std::chrono::microseconds every, int flags) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    TANDEM_CHECK(::sigaction(SIGUSR1, &action, &before_) == 0);
    sender_ = std::thread([this, every, self = ::pthread_self()] {
      while (!stop_) {
        ::pthread_kill(self, SIGUSR1);
        std::this_thread::sleep_for(every);
      }
    });
  }
  ~Interrupted() {
    stop_ = true;
    sender_.join();
    TANDEM_CHECK(::sigaction(SIGUSR1, &before_, nullptr) == 0);
  }
  Interrupted(const Interrupted&) = delete;
  Interrupted& operator=(const Interrupted&) = delete;

 private:
  struct sigaction before_ {};
  std::atomic<bool> stop_{false};
  std::thread sender_;
};

/// Whether `condition` comes true within ten seconds.
inline bool comes_true(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::yield();
  }
  return true;
}

/// Runs `body` in a forked child. Returns: its exit code, or minus the signal that ended it, which
/// is SIGALRM after a minute.
inline int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    ::_exit(body());
  }
  int status = -1;
  if (::waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/// Runs `body` where its never returning fails the test. ThreadSanitizer starts no thread in a
/// child.
inline int watched(unsigned seconds, const std::function<int()>& body) {
  if (kInstrumented) return body();
  return in_child([&] {
    ::alarm(seconds);
    return body();
  });
}

/// While it lives, no thread can be started: none has so much stack.
class NoThreads {
 public:
  NoThreads() {
    ::pthread_getattr_default_np(&before_);
    pthread_attr_t none;
    ::pthread_getattr_default_np(&none);
    ::pthread_attr_setstacksize(&none, std::size_t{1} << 50);
    TANDEM_CHECK(::pthread_setattr_default_np(&none) == 0);
    ::pthread_attr_destroy(&none);
  }
  ~NoThreads() {
    TANDEM_CHECK(::pthread_setattr_default_np(&before_) == 0);
    ::pthread_attr_destroy(&before_);
  }
  NoThreads(const NoThreads&) = delete;
  NoThreads& operator=(const NoThreads&) = delete;

 private:
  pthread_attr_t before_{};
};

/// A thread that sleeps in a section of `domain` until told to leave.
template <class Domain, class Section = std::scoped_lock<Domain>>
class Occupant {
 public:
  explicit Occupant(Domain& domain)
      : thread_([this, &domain] {
          const Section section(domain);
          inside_ = true;
          inside_.notify_all();
          leave_.wait(false);
        }) {
    inside_.wait(false);
  }
  ~Occupant() { leave(); }
  void leave() {
    leave_ = true;
    leave_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::atomic<bool> inside_{false};
  std::atomic<bool> leave_{false};
  std::thread thread_;
};

/// Runs `wait` on another thread and says whether it has returned.
class Waiter {
 public:
  explicit Waiter(std::function<void()> wait)
      : thread_([this, wait = std::move(wait)] {
          wait();
          returned_ = true;
        }) {}
  ~Waiter() { thread_.join(); }
  bool returned() const { return returned_; }
  bool returned_within(std::chrono::milliseconds time) const {
    const auto end = std::chrono::steady_clock::now() + time;
    while (!returned_ && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return returned_;
  }
  void wait() const { wait_until(returned_); }

 private:
  std::atomic<bool> returned_{false};
  std::thread thread_;
};

}  // namespace tandem::rcu::detail
