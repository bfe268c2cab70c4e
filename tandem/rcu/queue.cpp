// SPDX-License-Identifier: Apache-2.0
// Queues of retired objects: the producer's slow path, and the consumer.
#include "tandem/rcu/detail/queue.hpp"

#include <sched.h>

#include <algorithm>
#include <climits>
#include <memory>
#include <new>
#include <utility>

#include "tandem/base/futex.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/process.hpp"

namespace tandem::rcu::detail {
namespace {

/// Backlog from which threads that retire are slowed down.
constexpr std::uint64_t kWordsMax = 65536;
constexpr std::uint64_t kBytesMax = std::uint64_t{16} << 20;
/// Backlog that ends the worker's pause.
constexpr std::uint64_t kWordsHurry = 4096;
constexpr std::uint64_t kBytesHurry = std::uint64_t{1} << 20;

/// A thread that retires too much waits 1 ms for each chunk, then longer and longer.
constexpr std::chrono::milliseconds kFirstWait{1};
constexpr unsigned kLongestWait = 7;  // 128 ms

/// How many words a thread that runs its own retired objects gathers, and how many it then runs.
constexpr std::ptrdiff_t kInlineWords = 32;
constexpr std::uint64_t kInlineRun = 64;

}  // namespace

constinit Queue no_queue;
constinit thread_local const Frame* frames = nullptr;

bool runs_deleters_of(const Core& core) noexcept {
  for (const Frame* frame = frames; frame; frame = frame->outer) {
    if (frame->core == &core) return true;
  }
  return false;
}

// ---- The producer -----------------------------------------------------------------------------

bool Core::give_queue(Reader& self) noexcept {
  const MutexLock lock(registry);
  for (Queue* queue = queues.load(std::memory_order_relaxed); queue; queue = queue->next) {
    if (queue->owned) continue;
    queue->owned = true;
    queue->owes = false;
    self.queue = queue;
    return true;
  }
  auto* const queue = new (std::nothrow) Queue;
  if (queue == nullptr) return false;
  queue->lane.store(&lanes[0], std::memory_order_relaxed);
  queue->owned = true;
  queue->next = queues.load(std::memory_order_relaxed);
  queues.store(queue, std::memory_order_release);
  self.queue = queue;
  return true;
}

Lane& Core::lane_of_cpu(int cpu) noexcept {
  const std::size_t count = lane_count.load(std::memory_order_acquire);
  if (count == 1) return lanes[0];
  const MutexLock lock(registry);
  for (std::size_t i = 1; i < count; ++i) {
    if (CPU_ISSET(static_cast<std::size_t>(cpu), &lanes[i].cpus)) return lanes[i];
  }
  return lanes[0];
}

bool Core::too_much() const noexcept {
  return backlog_words.load(std::memory_order_relaxed) > kWordsMax ||
         backlog_bytes.load(std::memory_order_relaxed) > kBytesMax;
}

/// Slows the caller down to the workers' pace. Bounded, since a worker may wait for a lock that the
/// caller holds; but longer each time, so that a backlog that nobody can work off hardly grows.
void Core::throttle(Queue& queue) noexcept {
  Counters::add(counters.throttled);
  throttled.fetch_add(1, std::memory_order_seq_cst);
  const auto deadline = Clock::now() + kFirstWait * (1u << std::min(queue.patience, kLongestWait));
  for (;;) {
    const std::uint32_t seen = drained.load(std::memory_order_seq_cst);
    const auto left = deadline - Clock::now();
    if (!too_much() || left.count() <= 0) break;
    futex_wait(drained, seen, left);
  }
  throttled.fetch_sub(1, std::memory_order_relaxed);
  queue.patience = too_much() ? queue.patience + 1 : 0;
}

/// Has a thread that is online make good, where it is quiescent, what it must not do before.
void Core::owe(Reader& self) noexcept {
  if (!self.online || self.queue->owes) return;
  self.queue->owes = true;
  sequence.fetch_add(kStep, std::memory_order_acq_rel);  // so that quiescent() has something to do
}

void Core::settle(Reader& self) noexcept {
  Queue& queue = *self.queue;
  if (!queue.owes || frames != nullptr) return;
  queue.owes = false;
  if (too_much() && queue.lane.load(std::memory_order_relaxed)->worker.running()) throttle(queue);
  run_own(self);
}

/// A thread's own objects, in its own time: as many as are ready, and the next may become so. Where
/// no worker can be had, all of them, after a grace period.
void Core::run_own(Reader& self) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  Queue& queue = *self.queue;
  Lane& lane = *queue.lane.load(std::memory_order_relaxed);
  const bool has_worker = lane.worker.running();
  if (has_worker && lane.offloaded.load(std::memory_order_relaxed)) return;
  if (self.nesting() != 0) return owe(self);
  if (frames != nullptr || !queue.consumer.try_lock()) return;
  const bool waits = stage(queue);
  if (waits && !has_worker) {
    // Not under the lock: a section that we wait for may be in a barrier and want it. Who has it
    // afterwards runs for us what it may; the rest is for our next turn.
    queue.consumer.unlock();
    synchronize(&self);
    if (!queue.consumer.try_lock()) return;
  }
  if (!run_ready(queue, has_worker ? kInlineRun : ~std::uint64_t{0})) return;  // a child
  queue.consumer.unlock();
  if (!waits || !has_worker) return;
  (void)start_worker(lanes[0]);  // drives the grace periods that are asked for
  want(cookie());
}

bool Core::next_chunk(Queue& queue, Lane& lane, bool may_sleep) noexcept {
  Chunk* fresh = queue.spare.exchange(nullptr, std::memory_order_acquire);
  if (fresh == nullptr) fresh = new (std::nothrow) Chunk;
  if (fresh == nullptr) return false;
  fresh->next.store(nullptr, std::memory_order_relaxed);
  Chunk* const full = std::exchange(queue.filling, fresh);
  const std::uintptr_t* const end = std::exchange(queue.cursor, fresh->words.data());
  const std::uint64_t bytes = std::exchange(queue.bytes, 0);
  if (full == nullptr) {
    const MutexLock lock(queue.consumer);
    queue.taking = fresh;
    queue.at = 0;
    return true;
  }
  full->used = static_cast<std::uint32_t>(end - full->words.data());
  full->bytes = bytes;
  backlog_words.fetch_add(full->used, std::memory_order_relaxed);
  backlog_bytes.fetch_add(bytes, std::memory_order_relaxed);
  full->next.store(fresh, std::memory_order_release);
  const bool hurry = backlog_words.load(std::memory_order_relaxed) > kWordsHurry ||
                     backlog_bytes.load(std::memory_order_relaxed) > kBytesHurry;
  if (hurry && lane.pausing.load(std::memory_order_relaxed) != 0) {
    lane.hurry.fetch_add(1, std::memory_order_release);
    futex_wake(lane.hurry);
  }
  if (may_sleep && too_much()) throttle(queue);
  return true;
}

bool Core::make_room(Reader& self, std::size_t words) noexcept {
  if (self.queue == &no_queue && !give_queue(self)) return false;
  Queue& queue = *self.queue;
  const bool may_sleep = self.nesting() == 0 && frames == nullptr;
  Lane& lane = lane_of_cpu(::sched_getcpu());
  queue.lane.store(&lane, std::memory_order_release);
  queue.asleep = &lane.asleep;
  const bool has_worker = start_worker(lane);
  const bool own = !has_worker || !lane.offloaded.load(std::memory_order_relaxed);

  const auto room = [&] { return queue.filling->words.data() + Chunk::kWords - queue.cursor; };
  const bool is_full = queue.filling == nullptr || queue.bytes > kChunkObjectBytes ||
                       room() < static_cast<std::ptrdiff_t>(words);
  if (is_full && !next_chunk(queue, lane, may_sleep)) return false;
  if (is_full && !may_sleep && too_much()) owe(self);
  if (!has_worker || !light_readers.load(std::memory_order_relaxed)) {
    queue.limit = queue.cursor;  // each push comes here, and then waits or makes its own fence
  } else {
    queue.limit = queue.cursor + (own ? std::min<std::ptrdiff_t>(room(), kInlineWords) : room());
  }
  return true;
}

/// For objects that embed a head, which never wait for memory.
void Core::spill(std::uintptr_t word) noexcept {
  Counters::add(counters.overflowed);
  Queue& queue = last_resort;
  queue.spills.fetch_add(1, std::memory_order_relaxed);
  auto* const head = reinterpret_cast<callback_head*>(word & ~kTags);
  std::uintptr_t before = queue.spilled.load(std::memory_order_relaxed);
  do {
    head->next = reinterpret_cast<callback_head*>(before);
  } while (!queue.spilled.compare_exchange_weak(before, word, std::memory_order_seq_cst,
                                                std::memory_order_relaxed));
  (void)start_worker(lanes[0]);
  full_fence();
  if (lanes[0].asleep.load(std::memory_order_seq_cst) != 0) wake(lanes[0]);
}

void Core::wake(Lane& lane) noexcept {
  if (lane.asleep.exchange(0, std::memory_order_seq_cst) == 0) return;
  Counters::add(counters.worker_wakes);
  futex_wake(lane.asleep);
}

// ---- The consumer -----------------------------------------------------------------------------

namespace {

Core::Entry with_head(std::uintptr_t word) noexcept {
  Core::Entry entry;
  entry.head = reinterpret_cast<callback_head*>(word & ~kTags);
  if ((word & kStamped) != 0 && entry.head != nullptr) {
    entry.stamp = static_cast<const Node*>(entry.head)->stamp;
  }
  return entry;
}

}  // namespace

bool Core::holds_nothing(const Queue& queue) noexcept {
  return queue.taken.load(std::memory_order_acquire) ==
             queue.pushed.load(std::memory_order_acquire) &&
         queue.spills_taken.load(std::memory_order_acquire) ==
             queue.spills.load(std::memory_order_acquire);
}

bool Core::stage(Queue& queue) noexcept {
  // What waits keeps its grace period; what came since gets the next one.
  if (queue.waiting == queue.ready) {
    const std::uint64_t pushed = queue.pushed.load(std::memory_order_acquire);
    if (pushed != queue.waiting) {
      queue.waiting = pushed;
      queue.cookie = cookie();
    }
  }
  if (queue.spill == 0) {
    queue.spill = queue.spilled.exchange(0, std::memory_order_seq_cst);
    if (queue.spill != 0) queue.spill_cookie = cookie();
  }
  return queue.waiting != queue.ready || queue.spill != 0;
}

Core::Entry Core::take(Queue& queue) noexcept {
  Chunk* chunk = queue.taking;
  // Words are published after the chunk they are in, so where this one is at its end there is more.
  if (Chunk* const next = chunk->next.load(std::memory_order_acquire);
      next != nullptr && queue.at == chunk->used) {
    queue.taking = next;
    queue.at = 0;
    free_emptied(queue, chunk);
    chunk = next;
  }
  std::uint32_t words = 0;
  const Entry entry = read(*chunk, queue.at, words);
  queue.at += words;
  queue.taken.store(queue.taken.load(std::memory_order_relaxed) + words, std::memory_order_release);
  return entry;
}

void Core::free_emptied(Queue& queue, Chunk* chunk) noexcept {
  backlog_words.fetch_sub(chunk->used, std::memory_order_relaxed);
  backlog_bytes.fetch_sub(chunk->bytes, std::memory_order_seq_cst);
  Chunk* none = nullptr;
  if (!queue.spare.compare_exchange_strong(none, chunk, std::memory_order_release,
                                           std::memory_order_relaxed)) {
    delete chunk;
  }
  drained.fetch_add(1, std::memory_order_seq_cst);
  if (throttled.load(std::memory_order_seq_cst) != 0) futex_wake(drained, INT_MAX);
}

/// Returns: false in a child that the deleter forked.
bool Core::run(const Entry& entry, Queue& queue) noexcept {
  const Frame frame{this, &queue, frames};
  frames = &frame;
  // Deleters below this one may be inside a barrier; this one is not, and is waited for.
  const std::uint32_t nested = queue.nested.load(std::memory_order_relaxed);
  if (nested != 0) queue.nested.store(0, std::memory_order_release);
  if (entry.head != nullptr) {
    entry.head->run(entry.head);
  } else if (entry.object != nullptr) {
    entry.operation->run(entry.object);
  }
  frames = frame.outer;
  if (nested != 0) queue.nested.store(nested, std::memory_order_release);
  queue.runs.store(queue.runs.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  return current_generation() == generation;
}

/// A deleter that calls barrier takes from the queue, too: nothing is remembered across run().
bool Core::run_ready(Queue& queue, std::uint64_t limit) noexcept {
  const bool early = planted_fault("rcu-early-callback");
  for (std::uint64_t count = 0; count < limit; ++count) {
    if (queue.waiting != queue.ready && (early || completed_for(queue.cookie))) {
      queue.ready = queue.waiting;
    }
    if (queue.taken.load(std::memory_order_relaxed) == queue.ready) break;
    const Entry entry = take(queue);
    if (!run(entry, queue)) return false;
    if (count % 1000 == 999 && planted_fault("rcu-run-twice")) (void)run(entry, queue);
  }
  while (queue.spill != 0 && completed_for(queue.spill_cookie)) {
    const Entry entry = with_head(queue.spill);
    queue.spill = reinterpret_cast<std::uintptr_t>(entry.head->next);
    queue.spills_taken.fetch_add(1, std::memory_order_release);
    if (!run(entry, queue)) return false;
  }
  return true;
}

/// The object that the words from `at` describe, and how many they are.
Core::Entry Core::read(const Chunk& chunk, std::uint32_t at, std::uint32_t& words) noexcept {
  const std::uintptr_t word = chunk.words[at];
  words = 1;
  if ((word & kBare) == 0) return with_head(word);
  Entry entry;
  entry.object = reinterpret_cast<void*>(word & ~kBare);
  entry.operation = reinterpret_cast<const Operation*>(chunk.words[at + 1]);
  words = entry.operation->stamped ? 3 : 2;
  if (entry.operation->stamped && entry.object != nullptr) entry.stamp = chunk.words[at + 2];
  return entry;
}

bool Core::run_stamped(Queue& queue, std::uint64_t safe, std::uint64_t limit, bool& left) noexcept {
  for (bool again = true; again;) {
    again = false;
    left = false;
    const std::uint64_t pushed = queue.pushed.load(std::memory_order_acquire);
    const std::uint64_t start = queue.taken.load(std::memory_order_relaxed);
    Chunk* chunk = queue.taking;
    std::uint32_t at = queue.at;
    std::uint32_t words = 0;
    for (std::uint64_t seen = start; seen < pushed && !again; seen += words) {
      if (Chunk* const next = chunk->next.load(std::memory_order_acquire);
          next != nullptr && at == chunk->used) {
        chunk = next;
        at = 0;
      }
      const Entry entry = read(*chunk, at, words);
      std::uintptr_t& word = chunk->words[at];
      at += words;
      if (entry.stamp == 0) continue;
      if (entry.stamp > safe) {
        left = left || entry.stamp <= limit;
        continue;
      }
      word &= kTags;  // run out of turn
      if (!run(entry, queue)) return false;
      if (seen % 1000 == 999 && planted_fault("rcu-run-twice")) (void)run(entry, queue);
      // The deleter may have called barrier, which frees what it empties.
      again = queue.taken.load(std::memory_order_relaxed) != start;
    }
  }
  return run_stamped_spills(queue, safe, limit, left);
}

bool Core::run_stamped_spills(Queue& queue, std::uint64_t safe, std::uint64_t limit,
                              bool& left) noexcept {
  const auto next_of = [](std::uintptr_t word) -> callback_head*& {
    return reinterpret_cast<callback_head*>(word & ~kTags)->next;
  };
  if (const std::uintptr_t first = queue.spilled.exchange(0, std::memory_order_seq_cst)) {
    std::uintptr_t last = first;
    while (next_of(last) != nullptr) last = reinterpret_cast<std::uintptr_t>(next_of(last));
    next_of(last) = reinterpret_cast<callback_head*>(queue.spill);
    queue.spill = first;
    queue.spill_cookie = cookie();
  }
  for (bool again = true; again;) {
    again = false;
    std::uintptr_t before = 0;
    for (std::uintptr_t word = queue.spill; word != 0;
         before = word, word = reinterpret_cast<std::uintptr_t>(next_of(word))) {
      const Entry entry = with_head(word);
      if (entry.stamp == 0) continue;
      if (entry.stamp > safe) {
        left = left || entry.stamp <= limit;
        continue;
      }
      if (before != 0) {
        next_of(before) = entry.head->next;
      } else {
        queue.spill = reinterpret_cast<std::uintptr_t>(entry.head->next);
      }
      queue.spills_taken.fetch_add(1, std::memory_order_release);
      if (!run(entry, queue)) return false;
      again = true;  // from the start: the deleter may have called barrier
      break;
    }
  }
  return true;
}

}  // namespace tandem::rcu::detail
