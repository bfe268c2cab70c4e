// SPDX-License-Identifier: Apache-2.0
// Queues of retired objects: the consumer, which runs deleters. The producer: queue.cpp.
#include <climits>
#include <cstdint>
#include <utility>

#include "tandem/base/futex.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/process.hpp"
#include "tandem/rcu/detail/queue.hpp"

namespace tandem::rcu::detail {
namespace {

/// Chunks kept for the producer: as many as wait where it is slowed down, since a page from the
/// allocator may cost as much as hundreds of objects. They are given back where the worker sleeps.
constexpr std::uint32_t kSparesUnderLoad = 128;
constexpr std::uint32_t kSparesWhenIdle = 4;

/// Takes the operation's place once an object was run out of turn: whose code that was may be
/// unloaded before its words are passed.
constexpr Operation kHasRun{nullptr, /*stamped=*/true};

Core::Entry with_head(std::uintptr_t word) noexcept {
  Core::Entry entry;
  entry.head = reinterpret_cast<callback_head*>(word & ~kTags);
  if ((word & kStamped) != 0 && entry.head != nullptr) {
    entry.stamp = static_cast<const Node*>(entry.head)->stamp;
  }
  return entry;
}

}  // namespace

constinit thread_local const Frame* frames = nullptr;

bool runs_deleters_of(const Core& core) noexcept {
  for (const Frame* frame = frames; frame; frame = frame->outer) {
    if (frame->core == &core) return true;
  }
  return false;
}

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

void Core::give_spares_back(Queue& queue, Chunk* list) noexcept {
  while (list != nullptr) {
    Chunk* none = nullptr;
    if (queue.spares.compare_exchange_strong(none, list, std::memory_order_acq_rel)) return;
    // What came meanwhile, a few at most, goes on top.
    Chunk* const others = queue.spares.exchange(nullptr, std::memory_order_acq_rel);
    Chunk* last = nullptr;
    for (Chunk* chunk = others; chunk; chunk = chunk->next.load(std::memory_order_relaxed)) {
      chunk->used += list->used;
      last = chunk;
    }
    if (last == nullptr) continue;
    last->next.store(list, std::memory_order_relaxed);
    list = others;
  }
}

Chunk* Core::take_spare(Queue& queue) noexcept {
  Chunk* const first = queue.spares.exchange(nullptr, std::memory_order_acq_rel);
  if (first != nullptr) give_spares_back(queue, first->next.load(std::memory_order_relaxed));
  return first;
}

void Core::trim_spares(Queue& queue) noexcept {
  Chunk* list = queue.spares.exchange(nullptr, std::memory_order_acq_rel);
  while (list != nullptr && list->used > kSparesWhenIdle) {
    delete std::exchange(list, list->next.load(std::memory_order_relaxed));
  }
  give_spares_back(queue, list);
}

void Core::free_emptied(Queue& queue, Chunk* chunk) noexcept {
  backlog_words.fetch_sub(chunk->used, std::memory_order_relaxed);
  backlog_bytes.fetch_sub(chunk->bytes, std::memory_order_seq_cst);
  Chunk* spares = queue.spares.exchange(nullptr, std::memory_order_acq_rel);
  const std::uint32_t count = spares == nullptr ? 0 : spares->used;
  if (count < kSparesUnderLoad) {
    chunk->next.store(spares, std::memory_order_relaxed);
    chunk->used = count + 1;
    spares = chunk;
  } else {
    delete chunk;
  }
  give_spares_back(queue, spares);
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
      std::uintptr_t* const first = &chunk->words[at];
      at += words;
      if (entry.stamp == 0) continue;
      if (entry.stamp > safe) {
        left = left || entry.stamp <= limit;
        continue;
      }
      *first &= kTags;  // run out of turn
      if ((*first & kBare) != 0) first[1] = reinterpret_cast<std::uintptr_t>(&kHasRun);
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
