// SPDX-License-Identifier: Apache-2.0
// Workers: the threads that run what others retired.
//
// A worker sleeps while its lane holds nothing; a push to an empty lane wakes it, at the price of
// one load for the pusher. Under a stream of pushes it pauses between passes, up to a millisecond,
// so that one grace period serves many objects; a long backlog ends the pause.
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <climits>

#include "tandem/base/background_thread.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/process.hpp"
#include "tandem/trace/trace.hpp"

namespace tandem::rcu::detail {
namespace {

constexpr std::chrono::microseconds kShortestPause{50};
constexpr std::chrono::microseconds kLongestPause{1000};
/// How long threads may take to run their own objects before the worker does.
constexpr std::chrono::milliseconds kPatience{10};

}  // namespace

// ---- Worker -----------------------------------------------------------------------------------

bool Worker::start(Core& core, const char* name, void (*main)(void*), void* argument,
                   int fifo_priority) noexcept {
  // ThreadSanitizer starts no threads in a child of a process that had several.
  if (kInstrumented && core.parent != nullptr) return false;
  for (;;) {
    std::uint32_t state = settled();
    if (state != kNone) return state == kRuns;
    if (state_.compare_exchange_strong(state, kStarting, std::memory_order_acq_rel)) break;
  }
  core.acquire();
  main_ = main;
  argument_ = argument;
  const int error = start_background_thread(
      thread_, name, fifo_priority,
      [](void* self) -> void* {
        auto* const worker = static_cast<Worker*>(self);
        worker->main_(worker->argument_);
        return nullptr;
      },
      this);
  if (error != 0) {
    state_.store(kNone, std::memory_order_release);
    core.release();
    return false;
  }
  ::pthread_detach(thread_);
  state_.store(kRuns, std::memory_order_release);
  return true;
}

std::uint32_t Worker::settled() const noexcept {
  std::uint32_t state = state_.load(std::memory_order_acquire);
  for (; state == kStarting; state = state_.load(std::memory_order_acquire)) ::sched_yield();
  return state;
}

void Worker::ended(Core& core) noexcept {
  (void)settled();  // who started us still uses our handle
  state_.store(kEnded, std::memory_order_release);
  futex_wake(state_, INT_MAX);
  core.release();
}

void Worker::wait_for_end() noexcept {
  std::uint32_t state = state_.load(std::memory_order_acquire);
  while (state != kNone && state != kEnded) {
    futex_wait(state_, state);
    state = state_.load(std::memory_order_acquire);
  }
}

int Worker::configure(const cpu_set_t* cpus, int policy, int priority) noexcept {
  if (settled() != kRuns) return 0;
  if (cpus != nullptr) {
    if (const int error = ::pthread_setaffinity_np(thread_, sizeof *cpus, cpus)) return error;
  }
  if (policy < 0) return 0;
  sched_param parameter{};
  parameter.sched_priority = priority;
  return ::pthread_setschedparam(thread_, policy, &parameter);
}

// ---- Lanes ------------------------------------------------------------------------------------

bool Core::start_worker(Lane& lane) noexcept {
  if (lane.worker.running()) return true;
  if (!lane.worker.start(
          *this, "tandem-rcu",
          [](void* self) { static_cast<Lane*>(self)->core->lane_main(*static_cast<Lane*>(self)); },
          &lane)) {
    return false;
  }
  const MutexLock lock(registry);
  (void)lane.worker.configure(lane.has_worker_cpus ? &lane.worker_cpus : nullptr, lane.policy,
                              lane.priority);
  return true;
}

bool Core::lane_holds_something(const Lane& lane) const noexcept {
  for (const Queue* queue = queues.load(std::memory_order_acquire); queue; queue = queue->next) {
    if (queue->lane.load(std::memory_order_acquire) == &lane && !holds_nothing(*queue)) return true;
  }
  return &lane == &lanes[0] && !completed_for(wanted.load(std::memory_order_acquire));
}

void Core::trim_spares(const Lane& lane) noexcept {
  for (Queue* queue = queues.load(std::memory_order_acquire); queue; queue = queue->next) {
    if (queue->lane.load(std::memory_order_acquire) == &lane) trim_spares(*queue);
  }
}

/// One grace period for what waits, then the deleters. Returns false in a child that one forked.
/// `leave_busy`: passes over queues whose threads have run something themselves since.
bool Core::lane_pass(Lane& lane, bool leave_busy) noexcept {
  Queue* const all = queues.load(std::memory_order_acquire);
  bool waits = false;
  lane.away.store(true, std::memory_order_release);
  for (Queue* queue = all; queue; queue = queue->next) {
    if (queue->lane.load(std::memory_order_acquire) != &lane || holds_nothing(*queue)) continue;
    const MutexLock lock(queue->consumer);
    waits = stage(*queue) || waits;
  }
  lane.away.store(false, std::memory_order_release);
  if (waits) synchronize(nullptr);
  if (&lane == &lanes[0]) await(wanted.load(std::memory_order_acquire), nullptr);
  TANDEM_TRACE(rcu_callbacks, this, backlog_words.load(std::memory_order_relaxed));
  lane.away.store(true, std::memory_order_release);
  for (Queue* queue = all; queue; queue = queue->next) {
    if (queue->lane.load(std::memory_order_acquire) != &lane || holds_nothing(*queue)) continue;
    if (!run_queue(*queue, leave_busy)) return false;
  }
  lane.away.store(false, std::memory_order_release);
  return true;
}

/// The lock is not a scoped one: in a forked child it stays as it is.
bool Core::run_queue(Queue& queue, bool leave_busy) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  queue.consumer.lock();
  const bool busy = queue.taken.load(std::memory_order_relaxed) != queue.seen;
  if (!(leave_busy && busy) && !run_ready(queue, ~std::uint64_t{0})) return false;
  queue.seen = queue.taken.load(std::memory_order_relaxed);
  queue.consumer.unlock();
  return true;
}

/// Ordering: (G) the worker stores `asleep`, fences every thread of the process, then looks at the
///           queues; a pusher publishes its object, then (light fence) loads `asleep`. Either we
///           see the object or it sees that we sleep.
void Core::lane_main(Lane& lane) noexcept {
  auto pause = kShortestPause;
  bool after_sleep = true;
  while (!stop.load(std::memory_order_acquire)) {
    const std::uint32_t seen = lane.hurry.load(std::memory_order_acquire);
    if (!lane_holds_something(lane)) {
      lane.asleep.store(1, std::memory_order_seq_cst);
      if (!planted_fault("rcu-sleeps-without-fence")) grace_period_fence();  // (G)
      if (!lane_holds_something(lane) && !stop.load(std::memory_order_seq_cst)) {
        trim_spares(lane);
        futex_wait(lane.asleep, 1);
      }
      lane.asleep.store(0, std::memory_order_relaxed);
      pause = kShortestPause;
      after_sleep = true;
      continue;
    }
    const bool inline_lane = !lane.offloaded.load(std::memory_order_relaxed);
    if (inline_lane || !after_sleep) {
      lane.pausing.store(1, std::memory_order_seq_cst);
      const std::chrono::nanoseconds time = inline_lane ? kPatience : pause;
      if (!stop.load(std::memory_order_seq_cst) && !too_much()) futex_wait(lane.hurry, seen, time);
      lane.pausing.store(0, std::memory_order_relaxed);
      pause = std::min(pause * 2, kLongestPause);
    }
    after_sleep = false;
    if (!lane_pass(lane, inline_lane)) return;  // a child
  }
  lane.worker.ended(*this);
}

void Core::want(std::uint64_t cookie) noexcept {
  std::uint64_t before = wanted.load(std::memory_order_relaxed);
  while (before < cookie &&
         !wanted.compare_exchange_weak(before, cookie, std::memory_order_seq_cst)) {
  }
  full_fence();
  if (lanes[0].asleep.load(std::memory_order_seq_cst) != 0) wake(lanes[0]);
}

void Core::stop_workers() noexcept {
  stop.store(true, std::memory_order_seq_cst);
  for (Lane& lane : lanes) {
    lane.hurry.fetch_add(1, std::memory_order_seq_cst);
    futex_wake(lane.hurry);
    lane.asleep.store(0, std::memory_order_seq_cst);
    futex_wake(lane.asleep);
    lane.worker.wait_for_end();
  }
  hasty_requests.fetch_add(1, std::memory_order_seq_cst);
  futex_wake(hasty_requests);
  expediter.wait_for_end();
}

}  // namespace tandem::rcu::detail
