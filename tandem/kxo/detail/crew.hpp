// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <vector>

namespace tandem::kxo::detail {

/// Threads that help with one task after another, and sleep in between. They are started when they
/// are needed first. A helper that wakes up too late for a task misses it: nobody waits for it.
///
///   Crew crew(1, "search", [](void* tree, unsigned helper) { … }, &tree);
///   crew.open();      // helpers come in, and each does the task once
///   …                 // so does the caller
///   crew.close();     // who has not come in yet stays outside
///   crew.wait();      // until the last one is out
///
/// Thread safety: one thread at a time calls; the task runs on several at once.
/// Fork: the child has the crew without its threads, and nobody inside; open() starts others.
class Crew {
 public:
  static constexpr unsigned kMostHelpers = 63;
  using Task = void (*)(void* context, unsigned helper);  // 1, 2, …

  /// `name`: at most 15 characters.
  Crew(unsigned helpers, const char* name, Task task, void* context);
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  /// Lets each helper in once, after close() and wait(). Threads that cannot be started do not
  /// come; the next call tries again.
  /// Ordering: (A) what the caller did before happens before the tasks.
  void open() noexcept;
  void close() noexcept;
  /// Ordering: (B) what the tasks did happens before what the caller does then.
  void wait() noexcept;

 private:
  struct Helper {
    Crew* crew = nullptr;
    unsigned number = 0;
    pthread_t thread{};
    bool runs = false;
  };

  static void* run(void* helper);
  void work(unsigned number) noexcept;
  void start_helpers() noexcept;
  void forget_parents_threads() noexcept;

  const char* const name_;
  const Task task_;
  void* const context_;
  std::vector<Helper> helpers_;
  pid_t process_ = 0;  // that the threads are in
  /// Fields of crew.cpp. All sleep on it: helpers until a task begins, the caller until they are
  /// out.
  std::atomic<std::uint32_t> state_{0};
};

}  // namespace tandem::kxo::detail
