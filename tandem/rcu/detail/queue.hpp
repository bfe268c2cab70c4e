// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/rcu/callback_head.hpp"
#include "tandem/rcu/detail/reader.hpp"

/// Where a thread puts what is to be called after a grace period. Private: the inline path of
/// call() and retire, and the files that empty it.
namespace tandem::rcu::detail {

/// What an object that is retired embeds.
struct Node : callback_head {
  std::uint64_t stamp = 0;  // the first sequence whose readers cannot hold it
};

/// What to do with an object that embeds nothing.
struct Operation {
  void (*run)(void* object) noexcept;
  bool stamped;  // a stamp follows
};

/// An object in a queue takes one to three words; the low bits of the first tell which:
///
///     callback_head*
///     Node* | kStamped
///     object | kBare, const Operation* [, stamp]
///
/// The address is 0 once the object was run out of turn, and nothing of the operation is left.
inline constexpr std::uintptr_t kBare = 1;
inline constexpr std::uintptr_t kStamped = 2;
inline constexpr std::uintptr_t kTags = kBare | kStamped;
static_assert(alignof(callback_head) > kTags);

/// A page of a queue. Chunks are linked from the one being emptied to the one being filled.
struct Chunk {
  static constexpr std::size_t kBytes = 4096;
  static constexpr std::size_t kWords = (kBytes - 3 * sizeof(void*)) / sizeof(std::uintptr_t);

  std::atomic<Chunk*> next{nullptr};  // the producer links it when this one is closed
  std::uint32_t used = 0;             // words, once closed
  std::uint64_t bytes = 0;            // of the objects, once closed
  std::array<std::uintptr_t, kWords> words;
};
static_assert(sizeof(Chunk) == Chunk::kBytes);

struct Lane;

/// The objects that one thread retired, first in, first out.
///
/// One thread produces: it stores words and publishes them by `pushed`. One thread at a time, the
/// holder of `consumer`, takes: what was pushed waits for a grace period, then is ready, then runs.
/// Counts are in words since the queue was made, and never wrap. A queue outlives its thread and
/// then serves another; it ends with the domain.
///
///     taken ≤ ready ≤ waiting ≤ pushed
struct alignas(kCacheLine) Queue {
  // The producer's.
  std::uintptr_t* cursor = nullptr;
  std::uintptr_t* limit = nullptr;  // no word goes here or beyond before push_slowly() had a look
  std::uint64_t bytes = 0;          // of the objects in the chunk being filled
  std::uint32_t patience = 0;       // times in a row that it was too much
  bool owes = false;                // at its next quiescent state the thread calls Core::settle()
  const std::atomic<std::uint32_t>* asleep = nullptr;  // of the lane
  Chunk* filling = nullptr;
  std::atomic<std::uint64_t> pushed{0};
  std::atomic<Lane*> lane{nullptr};  // whose worker empties it

  // The consumer's.
  alignas(kCacheLine) Mutex consumer;
  Chunk* taking TANDEM_GUARDED_BY(consumer) = nullptr;
  std::uint32_t at TANDEM_GUARDED_BY(consumer) = 0;  // in taking->words
  mutable std::atomic<std::uint32_t> nested{
      0};                               // deleters of this queue that are inside rcu_barrier()
  std::atomic<std::uint64_t> taken{0};  // the holder of `consumer` writes
  std::atomic<std::uint64_t> runs{0};   // objects that have run; the holder of `consumer` writes
  std::uint64_t ready TANDEM_GUARDED_BY(consumer) = 0;
  std::uint64_t waiting TANDEM_GUARDED_BY(consumer) = 0;
  std::uint64_t cookie TANDEM_GUARDED_BY(consumer) = 0;  // names the grace period of `waiting`
  std::uint64_t seen TANDEM_GUARDED_BY(consumer) = 0;    // `taken` when the lane's worker last came

  // Objects with a head for which there was no memory, as tagged first words; head.next holds the
  // next one. Any thread pushes; the consumer takes all.
  std::atomic<std::uintptr_t> spilled{0};
  std::atomic<std::uint64_t> spills{0};        // pushed, ever
  std::atomic<std::uint64_t> spills_taken{0};  // the holder of `consumer` writes
  std::uintptr_t spill TANDEM_GUARDED_BY(consumer) = 0;
  std::uint64_t spill_cookie TANDEM_GUARDED_BY(consumer) = 0;

  // Emptied chunks for the producer to fill again; `used` counts those from there on. Whoever wants
  // something of the list takes all of it and gives back the rest.
  std::atomic<Chunk*> spares{nullptr};
  Queue* next = nullptr;  // of the core's; constant once there
  bool owned = false;     // under core->registry
};

/// Bytes of objects that close a chunk before it is full.
inline constexpr std::uint64_t kChunkObjectBytes = std::uint64_t{64} << 10;

}  // namespace tandem::rcu::detail
