// SPDX-License-Identifier: Apache-2.0
// rcu_barrier(): runs, or waits for, what was retired before the call.
//
// A queue's objects run under its `consumer` lock, so who holds the lock and finds nothing up to
// its target left knows that all of it has returned.
//
// Inside a deleter the lock of the deleter's own queue is ours already. Others wait for that lock:
// another deleter in a barrier, on another thread, or a barrier in a section. Whatever we wait for
// may wait for them. So there we never block: we go round all queues, run what may run, wherever it
// stands, and look again soon. A queue whose lock is held by another barrier in a deleter empties
// in the same way; what is below that one on its stack is left out, as it is for ours.
//
// What is left then waits for a section that began before it was retired. Where that section waits
// for our deleter, the program has asked for a cycle: docs/spec/rcu.md, "Open".
#include <algorithm>
#include <memory>
#include <new>
#include <utility>

#include "tandem/base/futex.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/process.hpp"
#include "tandem/rcu/stall.hpp"

namespace tandem::rcu::detail {
namespace {

constexpr std::chrono::microseconds kRetry{100};   // for a lock
constexpr std::chrono::microseconds kRound{1000};  // for a section

/// Marks the queue of the deleter that we are in as being inside a barrier. Those below it on this
/// stack are marked by the barriers that they are in.
class Nested {
 public:
  explicit Nested(const Core& core) noexcept : queue_(innermost(core)), known_(holds(queue_)) {
    if (!known_) outer_ = std::exchange(all, this);
    queue_.nested.fetch_add(1, std::memory_order_acq_rel);
  }
  ~Nested() {
    queue_.nested.fetch_sub(1, std::memory_order_acq_rel);
    if (!known_) all = outer_;
  }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;

  /// Whether a deleter of `queue` is on this stack, so that its lock is ours.
  static bool holds(const Queue& queue) noexcept {
    const Nested* nested = all;
    while (nested != nullptr && &nested->queue_ != &queue) nested = nested->outer_;
    return nested != nullptr;
  }

 private:
  static const Queue& innermost(const Core& core) noexcept {
    const Frame* frame = frames;
    while (frame->core != &core) frame = frame->outer;
    return *frame->queue;
  }

  static constinit thread_local const Nested* all;  // one for each queue

  const Queue& queue_;
  const bool known_;
  const Nested* outer_ = nullptr;
};
constinit thread_local const Nested* Nested::all = nullptr;

/// The lock of a queue, for who may not wait for it. While it is held, the queue is not marked:
/// what it runs for us is not inside a barrier, also between its taking and its run.
class Visit {
 public:
  explicit Visit(Queue& queue) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS
      : queue_(queue),
        own_(Nested::holds(queue)),
        held_(own_ || queue.consumer.try_lock()) {
    if (own_) marks_ = queue.nested.exchange(0, std::memory_order_acq_rel);
  }
  ~Visit() TANDEM_NO_THREAD_SAFETY_ANALYSIS {
    if (own_) {
      queue_.nested.store(marks_, std::memory_order_release);
    } else if (held_) {
      queue_.consumer.unlock();
    }
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;
  explicit operator bool() const noexcept { return held_; }

 private:
  Queue& queue_;
  const bool own_;
  const bool held_;
  std::uint32_t marks_ = 0;
};

/// How far each queue had been pushed to when a barrier began.
class Ends {
 public:
  /// `all`: the first queue; the list behind it stays as it is.
  [[gnu::noinline]] explicit Ends(const Queue* all) noexcept {
    std::size_t count = 0;
    for (const Queue* queue = all; queue; queue = queue->next) ++count;
    ends_.reset(new (std::nothrow) std::uint64_t[count]);
    if (!ends_) return;
    count = 0;
    for (const Queue* queue = all; queue; queue = queue->next) {
      ends_[count++] = queue->pushed.load(std::memory_order_acquire);
    }
  }
  /// Of `queue`, the `index`-th of the list. Without memory for more, what is there now.
  std::uint64_t of(const Queue& queue, std::size_t index) const noexcept {
    return ends_ ? ends_[index] : queue.pushed.load(std::memory_order_acquire);
  }

 private:
  std::unique_ptr<std::uint64_t[]> ends_;
};

/// Goes through the objects of a queue whose lock is held.
class Cursor {
 public:
  explicit Cursor(const Queue& queue) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS
      : seen_(queue.taken.load(std::memory_order_relaxed)),
        pushed_(queue.pushed.load(std::memory_order_acquire)),
        chunk_(queue.taking),
        at_(queue.at) {}
  /// Words in front of the current object, as Queue::taken counts them.
  std::uint64_t seen() const noexcept { return seen_; }
  bool at_end() const noexcept { return seen_ >= pushed_; }
  /// The current object; then the next one is.
  Core::Entry next() noexcept {
    if (Chunk* const next = chunk_->next.load(std::memory_order_acquire);
        next != nullptr && at_ == chunk_->used) {
      chunk_ = next;
      at_ = 0;
    }
    std::uint32_t words = 0;
    const Core::Entry entry = Core::read(*chunk_, at_, words);
    at_ += words;
    seen_ += words;
    return entry;
  }

 private:
  std::uint64_t seen_;
  const std::uint64_t pushed_;
  const Chunk* chunk_;
  std::uint32_t at_;
};

bool has_run(const Core::Entry& entry) noexcept {
  return entry.head == nullptr && entry.object == nullptr;
}

/// Drops what has run out of turn from the front of `queue`.
[[gnu::noinline]] void drop_what_has_run(Core& core,
                                         Queue& queue) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  for (Cursor cursor(queue); !cursor.at_end() && has_run(cursor.next());) (void)core.take(queue);
  queue.ready = std::max(queue.ready, queue.taken.load(std::memory_order_relaxed));
  queue.waiting = std::max(queue.waiting, queue.ready);
}

constexpr std::uint64_t kNowhere = ~std::uint64_t{0};

/// Where the first object without a stamp is, in words as Queue::taken counts them, or kNowhere.
[[gnu::noinline]] std::uint64_t first_unstamped(const Queue& queue) noexcept {
  for (Cursor cursor(queue); !cursor.at_end();) {
    const std::uint64_t at = cursor.seen();
    const Core::Entry entry = cursor.next();
    if (!has_run(entry) && entry.stamp == 0) return at;
  }
  return kNowhere;
}

/// Objects for which there was no memory have no order.
[[gnu::noinline]] bool holds_unstamped_spill(const Queue& queue) noexcept
    TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  for (std::uintptr_t word : {queue.spill, queue.spilled.load(std::memory_order_acquire)}) {
    for (; word != 0; word = reinterpret_cast<std::uintptr_t>(
                          reinterpret_cast<const callback_head*>(word & ~kTags)->next)) {
      if ((word & kStamped) == 0) return true;
    }
  }
  return false;
}

/// What a barrier in a deleter finds that holds the lock of a queue.
enum class Holder { kRunning, kInBarrier, kDone };

/// Done: in a barrier that has emptied the queue up to `end`, but for the deleters below it. In
/// this order: see Visit.
Holder holder_of(const Queue& queue, std::uint64_t end) noexcept {
  const bool emptied = queue.taken.load(std::memory_order_acquire) >= end &&
                       queue.spills_taken.load(std::memory_order_acquire) >=
                           queue.spills.load(std::memory_order_acquire);
  if (queue.nested.load(std::memory_order_acquire) == 0) return Holder::kRunning;
  return emptied || planted_fault("rcu-barrier-leaves-a-queue") ? Holder::kDone
                                                                : Holder::kInBarrier;
}

/// Runs what is ready in front of `end`. Returns: false in a child that a deleter forked.
bool run_ready_until(Core& core, Queue& queue,
                     std::uint64_t end) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  for (std::uint64_t before = 0;;) {
    before = queue.taken.load(std::memory_order_relaxed);
    if (before >= end && queue.spill == 0) return true;
    if (!core.run_ready(queue, 1)) return false;
    if (queue.taken.load(std::memory_order_relaxed) == before) return true;
  }
}

/// Reports sections that make a barrier in a deleter wait for long.
class Patience {
 public:
  /// About to sleep for sections below `bound`, once more if it is the same.
  [[gnu::noinline]] void report(Core& core, std::uint64_t bound) noexcept {
    if (bound != bound_) *this = Patience(bound);
    const auto age = Clock::now() - begin_;
    if (age >= next_) next_ = core.report_stall(bound_, age, ++reports_, false);
  }
  Patience() = default;

 private:
  explicit Patience(std::uint64_t bound) noexcept : bound_(bound) {}

  std::uint64_t bound_ = 0;
  Clock::time_point begin_ = Clock::now();
  Clock::duration next_ = stall_limit(false);
  unsigned reports_ = 0;
};

/// A barrier in a deleter, for what is stamped up to `limit` and, outside sections, for everything
/// without a stamp.
///
/// Each round looks at the readers once. What is stamped up to the oldest of them may run (as in
/// barrier_in_section()); and if none is older than `goal`, to which we advanced the sequence
/// before the fence, then a grace period has ended for what has no stamp.
///
/// It runs no more than it waits for, lest deleters that call barrier pile up on one stack; unless
/// another barrier in a deleter is in the way, which may wait for more than we do. What is not
/// inlined keeps small what each takes of the stack.
void barrier_in_deleter(Core& core, std::uint64_t limit, Reader* self,
                        bool in_section) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  if (!in_section && planted_fault("rcu-barrier-blocks-in-deleter")) core.synchronize(self);
  const Nested mark(core);
  Queue* const all = core.queues.load(std::memory_order_acquire);
  const Ends ends(all);
  Patience patience;
  std::uint64_t goal = 0;
  bool serve = false;
  for (;;) {
    const std::uint64_t bound = core.sequence.load(std::memory_order_acquire);
    core.fence(self);  // (F), see wait_for_readers()
    const std::uint64_t safe = core.oldest_reader(bound);
    if (goal != 0 && safe >= goal) {
      core.complete(goal);
      core.announce();
      Counters::add(core.counters.grace_periods);
      goal = 0;
    }
    bool held = false;        // by a section: something stamped
    bool unstamped = false;   // waits for a grace period
    bool elsewhere = false;   // another thread runs it
    bool in_the_way = false;  // another barrier in a deleter has its queue
    bool ran = false;
    std::size_t index = 0;
    for (Queue* queue = all; queue; queue = queue->next, ++index) {
      const std::uint64_t end = serve ? kNowhere : ends.of(*queue, index);
      const Visit visit(*queue);
      if (!visit) {
        const Holder holder = holder_of(*queue, ends.of(*queue, index));
        elsewhere = elsewhere || holder == Holder::kRunning;
        in_the_way = in_the_way || holder == Holder::kInBarrier;
        continue;
      }
      const std::uint64_t runs = queue->runs.load(std::memory_order_relaxed);
      drop_what_has_run(core, *queue);  // in a barrier below us on this stack
      if (!in_section && !run_ready_until(core, *queue, end)) return;
      bool held_here = false;
      if (!core.run_stamped(*queue, serve ? safe : std::min(safe, limit), limit, held_here)) return;
      held = held || held_here;
      ran = ran || queue->runs.load(std::memory_order_relaxed) != runs;
      drop_what_has_run(core, *queue);
      if (!in_section && (first_unstamped(*queue) < end || holds_unstamped_spill(*queue))) {
        unstamped = true;
        (void)core.stage(*queue);
      }
    }
    if (in_section) in_the_way = false;  // it may wait for our section with what has no stamp
    if (!held && !unstamped && !elsewhere && !in_the_way) return;
    serve = in_the_way && !ran;
    if (ran) continue;  // maybe for long: what we saw of the others is old
    if (unstamped && goal == 0) {
      goal = core.sequence.fetch_add(kStep, std::memory_order_acq_rel) + kStep;
    }
    if (elsewhere || in_the_way) {
      futex_wait(core.drained, core.drained.load(std::memory_order_acquire), kRetry);
    } else {
      const std::uint64_t until = std::max(held ? (safe | kNesting) + 1 : 0, goal);
      patience.report(core, until);
      core.sleep_for_readers(until, kRound);
    }
  }
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

void Core::barrier(Reader* self) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  if (runs_deleters_of(*this)) {
    return barrier_in_deleter(*this, sequence.load(std::memory_order_acquire), self, false);
  }
  // First what waits only for sections older than itself: a younger one may wait for its deleter.
  if (!planted_fault("rcu-barrier-too-early") &&
      !run_stamped_until(sequence.load(std::memory_order_acquire), self)) {
    return;
  }
  Queue* const all = queues.load(std::memory_order_acquire);
  bool waits = false;
  for (Queue* queue = all; queue; queue = queue->next) {
    const MutexLock lock(queue->consumer);
    drop_what_has_run(*this, *queue);
    waits = stage(*queue) || waits;
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
      queue->consumer.lock();
      if (!run_ready(*queue, ~std::uint64_t{0})) return;  // a child: the lock stays as it is
      const bool finished = done();
      const bool more = !finished && stage(*queue);
      queue->consumer.unlock();
      if (finished) break;
      if (more) synchronize(self);
    }
  }
}

/// Our own section keeps every grace period from ending, so what to run is found object by object:
/// a retire that came before the section has a stamp of at most its state.
void Core::barrier_in_section(std::uint64_t limit) noexcept {
  if (runs_deleters_of(*this)) return barrier_in_deleter(*this, limit, nullptr, true);
  (void)run_stamped_until(limit, nullptr);
}

/// Of the sections that hold something up we wait for the oldest only: a younger one may itself be
/// waiting for a deleter that waits for ours to end.
bool Core::run_stamped_until(std::uint64_t limit,
                             Reader* self) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  for (;;) {
    const std::uint64_t bound = sequence.load(std::memory_order_acquire);
    fence(self);  // (F), see wait_for_readers()
    const std::uint64_t safe = oldest_reader(bound);
    bool left = false;
    for (Queue* queue = queues.load(std::memory_order_acquire); queue; queue = queue->next) {
      bool left_here = false;
      queue->consumer.lock();
      if (!run_stamped(*queue, safe, limit, left_here)) return false;  // a child
      queue->consumer.unlock();
      left = left || left_here;
    }
    if (!left) return true;
    wait_for_readers((safe | kNesting) + 1);
  }
}

}  // namespace tandem::rcu::detail
