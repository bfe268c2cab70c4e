// SPDX-License-Identifier: Apache-2.0
// rcu_barrier(): runs, or waits for, what was retired before the call.
//
// A queue's objects run under its `consumer` lock, so who holds the lock and finds nothing up to
// its target left knows that all of it has returned. Inside a deleter the lock of the deleter's own
// queue is ours already, and another one may be held by a thread that waits for ours in the same
// way. So there we only try; and if the holder is inside a barrier of its own, that barrier empties
// the queue, and what is below it on its stack is left out, as it is for ours.
#include "tandem/base/futex.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/process.hpp"

namespace tandem::rcu::detail {
namespace {

constexpr std::chrono::microseconds kRetry{100};

bool on_this_stack(const Queue& queue) noexcept {
  for (const Frame* frame = frames; frame; frame = frame->outer) {
    if (frame->queue == &queue) return true;
  }
  return false;
}

/// Marks the queues whose deleters are on this stack as being inside a barrier.
class Nested {
 public:
  explicit Nested(const Core& core) : core_(core) { add(1); }
  ~Nested() { add(~std::uint32_t{0}); }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;

 private:
  void add(std::uint32_t by) const noexcept {
    for (const Frame* frame = frames; frame; frame = frame->outer) {
      if (frame->core == &core_) frame->queue->nested.fetch_add(by, std::memory_order_acq_rel);
    }
  }
  const Core& core_;
};

enum class Lock { kOwn, kTaken, kElsewhere };

Lock lock_consumer(Queue& queue, bool nested) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  if (!nested) {
    queue.consumer.lock();
    return Lock::kTaken;
  }
  if (on_this_stack(queue)) return Lock::kOwn;
  return queue.consumer.try_lock() ? Lock::kTaken : Lock::kElsewhere;
}

void unlock_consumer(Queue& queue, Lock lock) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  if (lock == Lock::kTaken) queue.consumer.unlock();
}

void wait_a_little(Core& core) noexcept {
  futex_wait(core.drained, core.drained.load(std::memory_order_acquire), kRetry);
}

}  // namespace

std::uint64_t Core::pushed_ever() const noexcept {
  std::uint64_t sum = 0;
  for (const Queue* queue = queues.load(std::memory_order_acquire); queue; queue = queue->next) {
    sum += queue->pushed.load(std::memory_order_acquire);
    sum += queue->spills.load(std::memory_order_acquire);
  }
  return sum;
}

void Core::barrier(const Reader* self) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  const bool is_nested = runs_deleters_of(*this);
  const Nested mark(*this);
  Queue* const all = queues.load(std::memory_order_acquire);
  bool waits = false;
  for (Queue* queue = all; queue; queue = queue->next) {
    const Lock lock = lock_consumer(*queue, is_nested);
    if (lock == Lock::kElsewhere) continue;
    waits = stage(*queue) || waits;
    unlock_consumer(*queue, lock);
  }
  if (waits) synchronize(self);
  for (Queue* queue = all; queue; queue = queue->next) {
    const std::uint64_t target = queue->pushed.load(std::memory_order_acquire);
    const std::uint64_t spill_target = queue->spills.load(std::memory_order_acquire);
    const auto done = [&] {
      return queue->taken.load(std::memory_order_acquire) >= target &&
             queue->spills_taken.load(std::memory_order_acquire) >= spill_target;
    };
    if (planted_fault("rcu-barrier-too-early") && done()) continue;
    for (;;) {
      const Lock lock = lock_consumer(*queue, is_nested);
      if (lock == Lock::kElsewhere) {
        if (done() && queue->nested.load(std::memory_order_acquire) != 0) break;
        wait_a_little(*this);
        continue;
      }
      if (!run_ready(*queue, ~std::uint64_t{0})) return;
      const bool finished = done();
      const bool more = !finished && stage(*queue);
      unlock_consumer(*queue, lock);
      if (finished) break;
      if (more) synchronize(self);
    }
  }
}

/// Our own section keeps every grace period from ending, so what to run is found object by object:
/// a retire that came before the section has a stamp of at most its state.
void Core::barrier_in_section(std::uint64_t limit) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  const bool is_nested = runs_deleters_of(*this);
  const Nested mark(*this);
  for (;;) {
    const std::uint64_t bound = sequence.load(std::memory_order_acquire);
    grace_period_fence();  // (F), see wait_for_readers()
    const std::uint64_t safe = oldest_reader(bound);
    bool left = false;
    bool elsewhere = false;
    for (Queue* queue = queues.load(std::memory_order_acquire); queue; queue = queue->next) {
      const Lock lock = lock_consumer(*queue, is_nested);
      if (lock == Lock::kElsewhere) {
        elsewhere = elsewhere || queue->nested.load(std::memory_order_acquire) == 0;
        continue;
      }
      bool left_here = false;
      if (!run_stamped(*queue, safe, limit, left_here)) return;
      unlock_consumer(*queue, lock);
      left = left || left_here;
    }
    if (!left && !elsewhere) return;
    if (elsewhere) wait_a_little(*this);
    if (left) wait_for_readers(limit, nullptr);
  }
}

}  // namespace tandem::rcu::detail
