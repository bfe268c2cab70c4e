// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/detail/callback_worker.hpp"

#include <chrono>
#include <climits>
#include <memory>
#include <utility>

#include "tandem/base/background_thread.hpp"
#include "tandem/base/check.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/rcu/detail/caller_state.hpp"
#include "tandem/rcu/detail/process.hpp"

namespace tandem::rcu::detail {
namespace {

constexpr std::uint64_t kHurry = 4096;       // queued callbacks that end the worker's pause
constexpr std::uint64_t kHighWater = 65536;  // queued callbacks from which pushers are slowed down
constexpr std::chrono::milliseconds kPause{1};  // between batches: gathers work, spares fences

/// The workers whose callbacks are on this thread's stack, innermost first.
struct Frame {
  const CallbackWorker* worker;
  const Frame* outer;
};
constinit thread_local const Frame* frames = nullptr;

bool runs_callbacks_of(const CallbackWorker& worker) noexcept {
  for (const Frame* frame = frames; frame; frame = frame->outer) {
    if (frame->worker == &worker) return true;
  }
  return false;
}

/// The list `newest`, oldest first.
callback_head* reversed(callback_head* newest) noexcept {
  callback_head* oldest = nullptr;
  while (newest) {
    callback_head* const next = std::exchange(newest->next, oldest);
    oldest = std::exchange(newest, next);
  }
  return oldest;
}

}  // namespace

CallbackWorker::~CallbackWorker() {
  Queue* const current = queue_.load(std::memory_order_acquire);
  if (!current) return;
  drain();
  Queue& mine = queue();
  if (mine.running.load(std::memory_order_acquire)) {
    mine.stop.store(true, std::memory_order_seq_cst);
    mine.work.store(1, std::memory_order_seq_cst);
    futex_wake(mine.work);
    mine.hurry.fetch_add(1, std::memory_order_release);
    futex_wake(mine.hurry);
    const MutexLock lock(mine.starting);
    ::pthread_join(mine.thread, nullptr);
  }
  delete &mine;  // what a parent process left behind stays: it may be half way through anything
}

void CallbackWorker::drain() noexcept {
  if (!queue_.load(std::memory_order_acquire)) return;
  TANDEM_CHECK(!runs_callbacks_of(*this));
  Queue& mine = queue();
  while (mine.invoked.load(std::memory_order_acquire) !=
         mine.queued.load(std::memory_order_acquire)) {
    barrier();  // callbacks may push
  }
}

CallbackWorker::Queue& CallbackWorker::queue() noexcept {
  const std::uint64_t generation = current_generation();
  Queue* current = queue_.load(std::memory_order_acquire);
  while (!current || current->generation != generation) {
    auto fresh = std::make_unique<Queue>(*this, generation, current);
    if (queue_.compare_exchange_strong(current, fresh.get(), std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      return *fresh.release();
    }
  }
  return *current;
}

/// Ordering: (G) the push and the load of `work` are seq_cst, as are the worker's store of `work`
///           and its load of `incoming`: either it sees the callback or we see it idle.
void CallbackWorker::push(callback_head& head, bool may_sleep) noexcept {
  TANDEM_CHECK(head.run != nullptr);
  Queue& mine = queue();
  // Counted first, so that no count of returned callbacks exceeds it.
  const std::uint64_t waiting = mine.queued.fetch_add(1, std::memory_order_relaxed) + 1 -
                                mine.invoked.load(std::memory_order_relaxed);
  head.next = mine.incoming.load(std::memory_order_relaxed);
  while (!mine.incoming.compare_exchange_weak(head.next, &head, std::memory_order_seq_cst,  // (G)
                                              std::memory_order_relaxed)) {
  }
  if (!mine.running.load(std::memory_order_acquire) && !start(mine)) {
    if (may_sleep && frames == nullptr) barrier();
    return;
  }
  if (mine.work.load(std::memory_order_seq_cst) == 0 &&  // (G)
      mine.work.exchange(1, std::memory_order_seq_cst) == 0) {
    futex_wake(mine.work);
  }
  if (waiting % kHurry == 0) {
    mine.hurry.fetch_add(1, std::memory_order_release);
    futex_wake(mine.hurry);
  }
  if (waiting > kHighWater && may_sleep) relieve();
}

/// Bounded, since the worker may wait for a lock that the caller holds.
void CallbackWorker::relieve() noexcept {
  Queue& mine = queue();
  const auto crowded = [&mine] {
    return mine.queued.load(std::memory_order_seq_cst) -
               mine.invoked.load(std::memory_order_seq_cst) >
           kHighWater;
  };
  if (frames != nullptr || !crowded()) return;
  mine.throttled.fetch_add(1, std::memory_order_seq_cst);
  const std::uint32_t seen = mine.drained.load(std::memory_order_seq_cst);
  if (crowded()) futex_wait(mine.drained, seen, kPause);
  mine.throttled.fetch_sub(1, std::memory_order_relaxed);
}

bool CallbackWorker::run_ready(Queue& mine) noexcept {
  const Frame frame{this, frames};
  frames = &frame;
  bool forked = false;
  // A callback that calls barrier empties `ready` itself.
  while (mine.ready && !forked) {
    callback_head* const head = std::exchange(mine.ready, mine.ready->next);
    if (planted_fault("rcu-worker-callback-twice")) head->run(head);
    head->run(head);
    forked = current_generation() != mine.generation;
    if (!forked) mine.invoked.fetch_add(1, std::memory_order_release);
  }
  frames = frame.outer;
  return !forked;
}

bool CallbackWorker::pass(Queue& mine) noexcept {
  if (!run_ready(mine)) return false;  // there is something only inside a callback
  callback_head* const taken = mine.incoming.exchange(nullptr, std::memory_order_seq_cst);
  if (!taken) return true;
  synchronize_(context_);
  mine.ready = reversed(taken);
  mine.batches.fetch_add(1, std::memory_order_relaxed);
  if (!run_ready(mine)) return false;
  mine.drained.fetch_add(1, std::memory_order_seq_cst);
  if (mine.throttled.load(std::memory_order_seq_cst) != 0) futex_wake(mine.drained, INT_MAX);
  return true;
}

/// A callback that was pushed before the call is in `incoming` or `ready`, or runs under `role`; a
/// pass of ours, under `role`, therefore finds it or finds it gone.
void CallbackWorker::barrier() noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  if (!queue_.load(std::memory_order_acquire)) return;
  Queue& mine = queue();
  if (planted_fault("rcu-worker-barrier-early")) return;
  const NotCancelled guard;
  if (runs_callbacks_of(*this)) {
    (void)pass(mine);
    return;
  }
  mine.role.lock();
  if (pass(mine)) mine.role.unlock();  // in a child, the role is the parent's
}

bool CallbackWorker::start(Queue& mine) noexcept {
  // ThreadSanitizer starts no threads in a child of a process that had several.
  if (kInstrumented && mine.parent) return false;
  const MutexLock lock(mine.starting);
  if (mine.running.load(std::memory_order_relaxed)) return true;
  const int error = start_background_thread(
      mine.thread, thread_name_, 0,
      [](void* argument) -> void* {
        auto& its_queue = *static_cast<Queue*>(argument);
        its_queue.owner.main(its_queue);
        return nullptr;
      },
      &mine);
  if (error != 0) return false;
  mine.running.store(true, std::memory_order_release);
  return true;
}

void CallbackWorker::main(Queue& mine) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  while (!mine.stop.load(std::memory_order_acquire)) {
    const std::uint32_t seen = mine.hurry.load(std::memory_order_acquire);
    const std::uint64_t before = mine.batches.load(std::memory_order_relaxed);
    mine.role.lock();
    if (!pass(mine)) return;  // a child
    mine.role.unlock();
    if (mine.batches.load(std::memory_order_relaxed) != before &&
        !mine.stop.load(std::memory_order_acquire)) {
      futex_wait(mine.hurry, seen, kPause);
    }
    mine.work.store(0, std::memory_order_seq_cst);         // (G)
    if (!mine.incoming.load(std::memory_order_seq_cst) &&  // (G)
        !mine.stop.load(std::memory_order_seq_cst)) {
      futex_wait(mine.work, 0);
    }
    mine.work.store(1, std::memory_order_relaxed);
  }
}

bool CallbackWorker::running() const noexcept {
  const Queue* const current = queue_.load(std::memory_order_acquire);
  return current && current->generation == process.generation.load(std::memory_order_acquire) &&
         current->running.load(std::memory_order_acquire);
}

CallbackWorker::Counts CallbackWorker::counts() const noexcept {
  const Queue* const current = queue_.load(std::memory_order_acquire);
  if (!current || current->generation != current_generation()) return {};
  // In this order, so that no more have returned than were pushed.
  const std::uint64_t invoked = current->invoked.load(std::memory_order_acquire);
  return {current->queued.load(std::memory_order_acquire), invoked,
          current->batches.load(std::memory_order_relaxed)};
}

}  // namespace tandem::rcu::detail
