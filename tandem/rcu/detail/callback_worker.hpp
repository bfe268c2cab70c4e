// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>

#include "tandem/base/cpu.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/rcu/callback_head.hpp"

namespace tandem::rcu::detail {

/// Calls functions after a grace period, in batches, on a thread of its own.
///
///     push() ──▶ incoming ──take──▶ synchronize(context) ──▶ ready ──▶ run
///
/// The thread starts at the first push, sleeps on a futex while nothing is queued, and pauses for
/// up to a millisecond between grace periods under load. Callbacks run in the order of their push.
///
/// Fork:        a child has an empty queue and a thread of its own; what the parent queued is the
///              parent's. A callback that forks returns in the child without running others.
/// Thread exit: of a pushing thread, does not matter.
class CallbackWorker {
 public:
  /// `synchronize(context)` waits for a grace period; it is called without locks, by the worker and
  /// by threads in barrier(). Context has to outlive this. `thread_name`: at most 15 characters.
  CallbackWorker(const char* thread_name, void (*synchronize)(void*) noexcept,
                 void* context) noexcept
      : thread_name_(thread_name), synchronize_(synchronize), context_(context) {}
  CallbackWorker(const CallbackWorker&) = delete;
  CallbackWorker& operator=(const CallbackWorker&) = delete;
  /// Runs what is queued, also what that queues, and ends the thread. Not from a callback.
  ~CallbackWorker();

  /// Has `head.run(&head)` called after a grace period that begins later. `head.run` is set.
  ///
  /// `may_sleep`: the caller is where a grace period need not wait for it. Past 65536 queued
  /// callbacks it sleeps up to 1 ms for the worker to catch up; and where no thread can be started
  /// it runs the callbacks itself. Otherwise push() never blocks, except to start the thread.
  /// Thread safety: any thread, also from callbacks.
  /// Ordering:      what happened before the push is visible to the callback.
  void push(callback_head& head, bool may_sleep) noexcept;

  /// Sleeps up to 1 ms for the worker to catch up if more than 65536 callbacks are queued; for who
  /// pushed without `may_sleep` and may sleep all the same. No effect in callbacks.
  void relieve() noexcept;

  /// Returns once no callback is queued, also none that a callback queued; for before destruction,
  /// where that happens in a place that cannot wait for a grace period. Not from a callback.
  void drain() noexcept;

  /// Returns once every callback pushed before has returned. May run callbacks itself.
  ///
  /// Thread safety: where the caller may wait for a grace period. From a callback of this worker it
  ///                waits for all but the callbacks on its own stack.
  void barrier() noexcept;

  /// Starts the thread if there is none. Returns: whether there is one.
  /// Thread safety: any thread; not a signal handler.
  bool start() noexcept { return start(queue()); }
  /// Whether push() finds a thread; such a push, where it may not sleep, is async-signal-safe.
  bool running() const noexcept;

  /// Callbacks pushed in this process, those of them that returned, and the batches they ran in.
  struct Counts {
    std::uint64_t queued = 0;
    std::uint64_t invoked = 0;
    std::uint64_t batches = 0;
  };
  Counts counts() const noexcept;

 private:
  /// The part that belongs to one process.
  struct Queue {
    Queue(CallbackWorker& worker, std::uint64_t process_generation, Queue* parents)
        : owner(worker), generation(process_generation), parent(parents) {}

    CallbackWorker& owner;
    const std::uint64_t generation;
    Queue* const parent;  // never used; keeps what the child abandoned reachable for leak checkers

    alignas(kCacheLine) std::atomic<callback_head*> incoming{nullptr};  // newest first
    std::atomic<std::uint64_t> queued{0};
    std::atomic<std::uint32_t> work{1};       // futex: 0 while the worker is idle
    std::atomic<std::uint32_t> hurry{0};      // futex: counts reasons to end the worker's pause
    std::atomic<std::uint32_t> drained{0};    // futex: counts passes, for throttled threads
    std::atomic<std::uint32_t> throttled{0};  // threads that sleep on `drained`
    std::atomic<bool> running{false};         // the thread exists; start() writes
    std::atomic<bool> stop{false};            // the destructor sets, the worker reads
    std::atomic<std::uint64_t> invoked{0};    // the holder of `role` writes
    std::atomic<std::uint64_t> batches{0};    // the holder of `role` writes
    Mutex starting;
    pthread_t thread TANDEM_GUARDED_BY(starting){};

    Mutex role;                                              // of the thread that runs callbacks
    callback_head* ready TANDEM_GUARDED_BY(role) = nullptr;  // oldest first
  };

  Queue& queue() noexcept;
  bool start(Queue& queue) noexcept;
  /// Takes what is queued, waits for a grace period and runs it. Returns false in a child that a
  /// callback forked, where `queue` must not be touched any more.
  [[nodiscard]] bool pass(Queue& queue) noexcept TANDEM_REQUIRES(queue.role);
  [[nodiscard]] bool run_ready(Queue& queue) noexcept TANDEM_REQUIRES(queue.role);
  void main(Queue& queue) noexcept;

  const char* const thread_name_;
  void (*const synchronize_)(void*) noexcept;
  void* const context_;
  std::atomic<Queue*> queue_{nullptr};
};

}  // namespace tandem::rcu::detail
