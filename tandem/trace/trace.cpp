// SPDX-License-Identifier: Apache-2.0
#include "tandem/trace/trace.hpp"

#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <new>

#include "tandem/base/cpu.hpp"

namespace tandem::trace {
namespace {

static_assert((kRingEntries & (kRingEntries - 1)) == 0, "the ring index is masked");

/// One entry, a sequence lock of its own: `sequence` is 0 while the owner writes, index + 1 after.
///
/// Ordering: the words are stored with release after sequence = 0, and loaded with acquire before
///           the second load of `sequence`; so who read a newer word also sees the sequence change.
struct Entry {
  std::atomic<std::uint64_t> sequence{0};
  std::atomic<std::uint64_t> time_ns{0};
  std::atomic<std::uint64_t> event_and_thread{0};
  std::atomic<std::uint64_t> a{0};
  std::atomic<std::uint64_t> b{0};
};

/// The ring of one thread at a time; outlives it, and is then given to a new thread.
struct Ring {
  alignas(kCacheLine) std::atomic<std::uint64_t> head{0};  // owner writes: events ever emitted
  std::atomic<std::uint64_t> start{0};                     // enable() writes: head at that time
  std::atomic<bool> owned{true};                           // (O) hands `head` to the next owner
  Ring* next = nullptr;                                    // set before the ring is published
  std::array<Entry, kRingEntries> entries;
};

constinit std::atomic<Ring*> all_rings{nullptr};     // only grows, by a push in acquire_ring()
constinit std::atomic<std::uint64_t> lost{0};        // events for which there was no ring
constinit std::atomic<std::uint64_t> lost_start{0};  // `lost` when the recording began

Ring* acquire_ring() noexcept {
  for (Ring* ring = all_rings.load(std::memory_order_acquire); ring; ring = ring->next) {
    bool owned = false;
    if (!ring->owned.load(std::memory_order_relaxed) &&
        ring->owned.compare_exchange_strong(owned, true, std::memory_order_acquire)) {  // (O)
      return ring;
    }
  }
  Ring* ring = new (std::nothrow) Ring;
  if (!ring) return nullptr;
  ring->next = all_rings.load(std::memory_order_relaxed);
  while (!all_rings.compare_exchange_weak(ring->next, ring, std::memory_order_release,
                                          std::memory_order_relaxed)) {
  }
  return ring;
}

/// What a thread remembers: its ring, given back when the thread exits.
struct ThreadRing {
  Ring* ring = acquire_ring();
  std::uint32_t thread = static_cast<std::uint32_t>(::gettid());

  ThreadRing() = default;
  ThreadRing(const ThreadRing&) = delete;
  ThreadRing& operator=(const ThreadRing&) = delete;
  ~ThreadRing();
};

constinit thread_local bool thread_exited = false;  // events of later destructors are lost
thread_local ThreadRing thread_ring;

ThreadRing::~ThreadRing() {
  thread_exited = true;
  if (ring) ring->owned.store(false, std::memory_order_release);  // (O)
}

std::uint64_t now_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}

/// Appends what `ring` holds of this recording.
void read_ring(const Ring& ring, std::vector<Record>& records) {
  const std::uint64_t head = ring.head.load(std::memory_order_acquire);
  const std::uint64_t oldest = head > kRingEntries ? head - kRingEntries : 0;
  const std::uint64_t first = std::max(oldest, ring.start.load(std::memory_order_relaxed));
  for (std::uint64_t index = first; index < head; ++index) {
    const Entry& entry = ring.entries[index & (kRingEntries - 1)];
    if (entry.sequence.load(std::memory_order_acquire) != index + 1) continue;
    Record record;
    record.time_ns = entry.time_ns.load(std::memory_order_acquire);
    const std::uint64_t packed = entry.event_and_thread.load(std::memory_order_acquire);
    record.event = static_cast<Event>(packed >> 32);
    record.thread = static_cast<std::uint32_t>(packed);
    record.a = entry.a.load(std::memory_order_acquire);
    record.b = entry.b.load(std::memory_order_acquire);
    if (entry.sequence.load(std::memory_order_relaxed) == index + 1) records.push_back(record);
  }
}

}  // namespace

std::string_view event_name(Event event) noexcept {
  switch (event) {
#define TANDEM_TRACE_CASE(name, enumerator) \
  case Event::enumerator:                   \
    return #name;
    TANDEM_TRACE_EVENTS(TANDEM_TRACE_CASE)
#undef TANDEM_TRACE_CASE
  }
  return "unknown";
}

void enable(bool on) noexcept {
  if (on && !enabled()) {
    for (Ring* ring = all_rings.load(std::memory_order_acquire); ring; ring = ring->next) {
      ring->start.store(ring->head.load(std::memory_order_acquire), std::memory_order_relaxed);
    }
    lost_start.store(lost.load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
  detail::enabled.store(on, std::memory_order_relaxed);
}

void emit(Event event, std::uint64_t a, std::uint64_t b) noexcept {
  Ring* const ring = thread_exited ? nullptr : thread_ring.ring;
  if (!ring) {
    lost.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  const std::uint64_t index = ring->head.load(std::memory_order_relaxed);
  Entry& entry = ring->entries[index & (kRingEntries - 1)];
  const std::uint64_t packed = std::uint64_t{static_cast<std::uint16_t>(event)} << 32;
  entry.sequence.store(0, std::memory_order_relaxed);
  entry.time_ns.store(now_ns(), std::memory_order_release);
  entry.event_and_thread.store(packed | thread_ring.thread, std::memory_order_release);
  entry.a.store(a, std::memory_order_release);
  entry.b.store(b, std::memory_order_release);
  entry.sequence.store(index + 1, std::memory_order_release);
  ring->head.store(index + 1, std::memory_order_release);
}

std::vector<Record> snapshot() {
  std::vector<Record> records;
  for (const Ring* ring = all_rings.load(std::memory_order_acquire); ring; ring = ring->next) {
    read_ring(*ring, records);
  }
  std::stable_sort(records.begin(), records.end(), [](const Record& left, const Record& right) {
    return left.time_ns < right.time_ns;
  });
  return records;
}

std::uint64_t dropped() noexcept {
  std::uint64_t count =
      lost.load(std::memory_order_relaxed) - lost_start.load(std::memory_order_relaxed);
  for (const Ring* ring = all_rings.load(std::memory_order_acquire); ring; ring = ring->next) {
    const std::uint64_t start = ring->start.load(std::memory_order_relaxed);
    const std::uint64_t emitted = ring->head.load(std::memory_order_acquire) - start;
    if (emitted > kRingEntries) count += emitted - kRingEntries;
  }
  return count;
}

}  // namespace tandem::trace
