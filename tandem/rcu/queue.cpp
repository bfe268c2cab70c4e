// SPDX-License-Identifier: Apache-2.0
// Queues of retired objects: the producer's slow path. The consumer: queue_consumer.cpp.
#include "tandem/rcu/detail/queue.hpp"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "tandem/base/futex.hpp"
#include "tandem/rcu/detail/caller_state.hpp"
#include "tandem/rcu/detail/core.hpp"

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
  const NotCancelled guard;
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
  Chunk* fresh = take_spare(queue);
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

}  // namespace tandem::rcu::detail
