// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>
#include <sched.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

#include "tandem/base/mutex.hpp"
#include "tandem/base/result.hpp"
#include "tandem/rcu/detail/queue.hpp"
#include "tandem/rcu/detail/reader.hpp"
#include "tandem/rcu/stats.hpp"

namespace tandem::rcu {
struct offload_options;
}

namespace tandem::rcu::detail {

struct Core;

using Clock = std::chrono::steady_clock;

/// A thread of a core: started once, on demand, and joined by its last words.
class Worker {
 public:
  /// Starts `main(argument)` as start_background_thread() does, unless it runs.
  /// Returns: whether it runs. ThreadSanitizer starts none in a child of a process with threads.
  bool start(Core& core, const char* name, void (*main)(void*), void* argument,
             int fifo_priority = 0) noexcept;
  bool running() const noexcept { return state_.load(std::memory_order_acquire) == kRuns; }
  /// The worker's last action; it touches nothing of the core's afterwards.
  void ended(Core& core) noexcept;
  void wait_for_end() noexcept;
  /// Errors: the errno of pthread_setaffinity_np() or pthread_setschedparam(), 0 when it does not
  /// run.
  int configure(const cpu_set_t* cpus, int policy, int priority) noexcept;

 private:
  enum State : std::uint32_t { kNone, kStarting, kRuns, kEnded };
  /// The state once nobody is starting the thread any more.
  std::uint32_t settled() const noexcept;
  std::atomic<std::uint32_t> state_{kNone};  // futex
  pthread_t thread_{};                       // valid while kRuns
  void (*main_)(void*) = nullptr;
  void* argument_ = nullptr;
};

/// Some CPUs, and the worker that runs what threads on them retire.
struct Lane {
  Core* core = nullptr;
  cpu_set_t cpus{};                      // under core->registry; lane 0: those of no other
  std::atomic<bool> offloaded{true};     // false: threads run their own, the worker what they leave
  std::atomic<std::uint32_t> asleep{0};  // futex: 1 while the worker has nothing to do
  std::atomic<std::uint32_t> hurry{0};   // futex: counts reasons to end the worker's pause
  std::atomic<std::uint32_t> pausing{0};  // whether it pauses
  std::atomic<bool> away{false};  // the worker may be in a deleter, and drives no grace period
  Worker worker;
  cpu_set_t worker_cpus{};       // under core->registry
  bool has_worker_cpus = false;  // under core->registry
  int policy = -1;               // under core->registry; -1: as it started
  int priority = 0;              // under core->registry
};

/// The part of a domain that belongs to one process: readers, grace periods, retired objects.
///
/// A forked child never touches the parent's core, whose locks and lists may be half way through
/// anything; it makes a new one. The domain holds one reference, each attached reader and each
/// worker another, so that a thread may outlive a domain it once used.
struct Core {
  static constexpr std::size_t kLanes = 8;

  Core(std::atomic<std::uint64_t>& domain_sequence, std::uint64_t process_generation,
       Core* parents);
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;
  ~Core();

  void acquire() noexcept { references.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept;

  // Readers: core.cpp.

  void link(Reader& reader) noexcept TANDEM_EXCLUDES(registry);
  void unlink(Reader& reader) noexcept TANDEM_EXCLUDES(registry);
  void count_plain(Reader& reader) noexcept;
  void make_nobody_plain() noexcept;
  /// From here on grace periods make the reader's fences, if they can.
  void make_plain(Reader& reader) noexcept;
  class Waiting;
  void wake_all() noexcept;

  // Grace periods: core.cpp.

  /// The lowest state of a reader in a section, at most `bound`.
  std::uint64_t oldest_reader(std::uint64_t bound) noexcept TANDEM_EXCLUDES(registry);
  std::uint64_t oldest_reader_locked(std::uint64_t bound) const noexcept TANDEM_REQUIRES(registry);
  /// A fence on this thread and on every reader that does not fence for itself. (F)
  void fence(const Reader* self) noexcept;
  void fence_others() noexcept;
  /// Whether `self` is one of plain_readers.
  bool counts(const Reader* self) const noexcept;
  /// Whether there are plain readers besides `self`; after a full fence. (H)
  bool has_plain_readers_besides(const Reader* self) const noexcept;
  /// Whether no reader is in a section with a state below `bound`. Both after fence().
  bool first_look(std::uint64_t bound) noexcept TANDEM_EXCLUDES(registry);
  /// Returns once none is.
  void wait_for_readers(std::uint64_t bound) noexcept TANDEM_EXCLUDES(registry);
  void sleep_for_readers(std::uint64_t bound, Clock::duration at_most) noexcept
      TANDEM_EXCLUDES(registry);
  void complete(std::uint64_t bound) noexcept;
  void end_grace_period(std::uint64_t bound) noexcept;
  /// Ends a grace period after its fence, if no reader is in its way.
  bool end_if_clear(std::uint64_t bound, bool fence_skipped) noexcept TANDEM_EXCLUDES(registry);
  std::uint64_t bound_for(std::uint64_t cookie) noexcept;
  /// Wakes those who wait for somebody else's grace period.
  void announce() noexcept;
  void drive(std::uint64_t cookie, std::uint64_t bound, Reader* self) noexcept;
  void drive_in_turn(std::uint64_t cookie, std::uint64_t bound, Reader* self, bool fenced) noexcept;
  bool completed_for(std::uint64_t cookie) const noexcept {
    return completed.load(std::memory_order_acquire) >= cookie;
  }
  /// Names a grace period that begins after the call.
  std::uint64_t cookie() noexcept {
    return sequence.fetch_add(0, std::memory_order_acq_rel) + kStep;
  }
  void synchronize(Reader* self) noexcept;
  /// Returns once the grace period of `cookie` has ended, whoever drives it.
  void await(std::uint64_t cookie, Reader* self) noexcept;
  /// Tries to end it without waiting for anybody, not even for a lock. Async-signal-safe.
  bool try_await(std::uint64_t cookie) noexcept;
  /// Whether no reader below `bound` was seen. False, too, where another thread looks.
  bool seems_clear(std::uint64_t bound) noexcept;
  void want(std::uint64_t cookie) noexcept;

  // Expedited grace periods: expedite.cpp.

  void expedite(Reader* self) noexcept;
  void expedite_main() noexcept;
  void boost_readers(std::uint64_t bound) noexcept TANDEM_EXCLUDES(registry);
  void unboost_readers(std::uint64_t bound) noexcept TANDEM_EXCLUDES(registry);
  static void unboost(Reader& reader) noexcept;

  // Stalls: stall.cpp.

  /// Reports the readers below `bound`. Returns: when to look again, after the grace period's
  /// begin.
  Clock::duration report_stall(std::uint64_t bound, Clock::duration age, unsigned reports,
                               bool expedited) noexcept TANDEM_EXCLUDES(registry);

  // Queues: queue.cpp; the consumer's side, which needs queue.consumer: queue_consumer.cpp.

  /// Makes room for `words` in `self`'s queue. Outside sections and deleters it may sleep, or run
  /// deleters of its own thread's objects. Returns: false when no memory is left.
  bool make_room(Reader& self, std::size_t words) noexcept;
  bool next_chunk(Queue& queue, Lane& lane, bool may_sleep) noexcept;
  void run_own(Reader& self) noexcept;
  void owe(Reader& self) noexcept;
  /// At a quiescent state, offline: waits for a backlog and runs objects as make_room() may.
  void settle(Reader& self) noexcept;
  bool give_queue(Reader& self) noexcept TANDEM_EXCLUDES(registry);
  void spill(std::uintptr_t word) noexcept;
  void throttle(Queue& queue) noexcept;
  bool too_much() const noexcept;
  void wake(Lane& lane) noexcept;
  Lane& lane_of_cpu(int cpu) noexcept TANDEM_EXCLUDES(registry);

  struct Entry {
    callback_head* head = nullptr;
    void* object = nullptr;
    const Operation* operation = nullptr;
    std::uint64_t stamp = 0;  // 0: none
  };
  /// Whether something waits for its grace period now.
  bool stage(Queue& queue) noexcept TANDEM_REQUIRES(queue.consumer);
  Entry take(Queue& queue) noexcept TANDEM_REQUIRES(queue.consumer);
  static Entry read(const Chunk& chunk, std::uint32_t at, std::uint32_t& words) noexcept;
  /// Runs what is ready, at most `limit` objects. False: a deleter forked and this is the child,
  /// where this core must not be touched any more.
  [[nodiscard]] bool run_ready(Queue& queue, std::uint64_t limit) noexcept
      TANDEM_REQUIRES(queue.consumer);
  /// Runs, out of turn, what is stamped up to `safe`. `left`: whether more is, up to `limit`.
  [[nodiscard]] bool run_stamped(Queue& queue, std::uint64_t safe, std::uint64_t limit,
                                 bool& left) noexcept TANDEM_REQUIRES(queue.consumer);
  [[nodiscard]] bool run_stamped_spills(Queue& queue, std::uint64_t safe, std::uint64_t limit,
                                        bool& left) noexcept TANDEM_REQUIRES(queue.consumer);
  [[nodiscard]] bool run(const Entry& entry, Queue& queue) noexcept;
  static bool holds_nothing(const Queue& queue) noexcept;
  void free_emptied(Queue& queue, Chunk* chunk) noexcept;
  static Chunk* take_spare(Queue& queue) noexcept;
  static void give_spares_back(Queue& queue, Chunk* list) noexcept;
  /// Frees spare chunks but for a few.
  static void trim_spares(Queue& queue) noexcept;
  void trim_spares(const Lane& lane) noexcept;

  // Barriers: barrier.cpp.

  /// Returns once everything pushed before the call has run, or at once in a child that a deleter
  /// forked.
  void barrier(Reader* self) noexcept;
  /// The same from a section with state `limit`, for what was stamped before the section.
  void barrier_in_section(std::uint64_t limit) noexcept;
  /// Runs what is stamped up to `limit`, once the sections older than it have ended. Returns: false
  /// in a child that a deleter forked.
  [[nodiscard]] bool run_stamped_until(std::uint64_t limit, Reader* self) noexcept;
  /// A number that grows with each object pushed.
  std::uint64_t pushed_ever() const noexcept;

  // Groups of CPUs: offload.cpp.

  Result<Lane*> lane_for(const cpu_set_t& cpus) noexcept TANDEM_REQUIRES(registry);
  Result<void> set_offload(const offload_options& options) noexcept
      TANDEM_EXCLUDES(registry, configuring);
  std::size_t run_callbacks(Reader& self) noexcept;

  // Workers: lane.cpp.

  bool start_worker(Lane& lane) noexcept;
  void lane_main(Lane& lane) noexcept;
  bool lane_holds_something(const Lane& lane) const noexcept;
  [[nodiscard]] bool lane_pass(Lane& lane, bool leave_busy) noexcept;
  [[nodiscard]] bool run_queue(Queue& queue, bool leave_busy) noexcept
      TANDEM_EXCLUDES(queue.consumer);
  void stop_workers() noexcept;

  std::atomic<std::uint64_t>& sequence;  // the domain's
  const std::uint64_t generation;
  Core* const parent;  // never used; keeps what the child abandoned reachable for leak checkers
  std::atomic<std::uint32_t> references{1};
  std::atomic<bool> dead{false};        // the domain's destructor sets; threads drop their readers
  std::atomic<std::uint32_t> moved{0};  // futex: a reader that someone waited for has moved
  std::atomic<std::uint32_t> plain_readers{0};  // that leave their fences to (F), less Waiting

  Mutex configuring;  // of the thread in set_offload(); before `registry`
  Mutex registry;
  Reader* readers TANDEM_GUARDED_BY(registry) = nullptr;

  alignas(kCacheLine) std::atomic<std::uint64_t> completed{0};  // no reader below it is left
  std::atomic<std::uint64_t> wanted{0};                         // cookie that somebody polls for
  // Futex: counts grace periods driven to their end, by 2; odd while one is driven, for all to
  // wait.
  std::atomic<std::uint32_t> turn{0};
  std::atomic<std::uint32_t> in_line{0};  // threads that sleep on `turn`

  Worker expediter;
  std::atomic<std::uint64_t> hasty{0};           // cookie asked of the expediter
  std::atomic<std::uint32_t> hasty_requests{0};  // futex: counts them
  std::atomic<std::uint32_t> hasty_done{0};      // futex: counts its answers

  std::atomic<Queue*> queues{nullptr};          // all there are; pushed to under `registry`
  Queue last_resort;                            // the oldest of them: takes what found no memory
  std::atomic<std::uint64_t> backlog_words{0};  // in closed chunks
  std::atomic<std::uint64_t> backlog_bytes{0};
  std::atomic<std::uint32_t> drained{0};    // futex: counts emptied chunks, for throttled threads
  std::atomic<std::uint32_t> throttled{0};  // threads that sleep on `drained`
  std::atomic<bool> stop{false};            // stop_workers() sets, workers read
  std::array<Lane, kLanes> lanes;
  std::atomic<std::size_t> lane_count{1};

  domain_stats snapshot() noexcept TANDEM_EXCLUDES(registry);
  Counters counters;
  // More of the same, by end_if_clear().
  std::uint64_t ended_at_once TANDEM_GUARDED_BY(registry) = 0;
  std::uint64_t skipped TANDEM_GUARDED_BY(registry) = 0;
};

/// The deleters on this thread's stack, innermost first.
struct Frame {
  const Core* core;
  const Queue* queue;  // null: the overflow list
  const Frame* outer;
};
extern constinit thread_local const Frame* frames;

bool runs_deleters_of(const Core& core) noexcept;

/// Detaches and frees `reader`, of a thread that ends, unless it is in a section.
void leave_for_good(Reader& reader) noexcept;
/// wake_waiters() in a thread that ends.
void wake_waiters_and_leave(Reader& reader) noexcept;

}  // namespace tandem::rcu::detail
