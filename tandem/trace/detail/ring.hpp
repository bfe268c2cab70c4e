// SPDX-License-Identifier: Apache-2.0
/// A thread's ring of events: one writer, any number of readers, possibly in another process.
///
/// It is memory of this process or a file mapped shared; the layout is the same. Positions count
/// events ever written: position p is in entry p mod `entries`.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tandem/base/cpu.hpp"
#include "tandem/base/field.hpp"
#include "tandem/trace/trace.hpp"

namespace tandem::trace::detail {

/// One entry, a sequence lock of its own: `sequence` is 0 while the owner writes, position + 1
/// after.
///
/// Ordering: the words are stored with release after sequence = 0, and loaded with acquire before
///           the second load of `sequence`; so who read a newer word also sees the sequence change.
struct alignas(kCacheLine) Entry {
  std::atomic<std::uint64_t> sequence;
  std::atomic<std::uint64_t> time_ns;
  std::atomic<std::uint64_t> origin;  // Event, CPU and thread; see the fields in ring.cpp
  std::array<std::atomic<std::uint64_t>, 4> arguments;
};
static_assert(sizeof(Entry) == kCacheLine && std::atomic<std::uint64_t>::is_always_lock_free);

/// A `comm` of the kernel: at most 15 bytes and a zero.
using Name = std::array<char, 16>;

/// What stands before the entries.
struct RingHeader {
  static constexpr std::uint64_t kMagic = 0x31'65636172746474;  // "tdtrace1"
  std::uint64_t magic;                                          // kMagic, written last of these
  std::uint32_t entries;                                        // a power of two
  std::uint32_t process;
  Name process_name;
  alignas(kCacheLine) std::atomic<std::uint64_t> head;  // owner writes: events ever written
  std::atomic<std::uint64_t> start;   // enable() writes: head when the recording began
  std::atomic<std::uint64_t> lost;    // events of threads that got no ring; any thread adds
  std::atomic<std::uint32_t> owned;   // (O) hands `head` to the next owner
  std::atomic<std::uint32_t> thread;  // owner writes at its first event
  std::array<std::atomic<std::uint64_t>, 2> thread_name;
};
static_assert(sizeof(RingHeader) == 2 * kCacheLine);

/// A view of a ring; whoever made it keeps the memory.
class Ring {
 public:
  Ring() = default;
  static constexpr std::size_t size_bytes(std::uint32_t entries) {
    return sizeof(RingHeader) + std::size_t{entries} * sizeof(Entry);
  }
  /// Makes an empty ring in zeroed memory of size_bytes(entries), aligned to a cache line.
  static Ring make(std::byte* memory, std::uint32_t entries, std::uint32_t process,
                   const Name& process_name);
  /// The ring in `memory`, if there is one that fits.
  static Ring find(std::byte* memory, std::size_t size_bytes);

  explicit operator bool() const { return header_ != nullptr; }
  RingHeader& header() const { return *header_; }

  /// Thread safety: the owner's thread. Wait-free.
  void write(const Record& record);
  /// Appends what is there of this recording, in order. Thread safety: any; lock-free.
  /// Returns: how many events of the recording are not among what was appended.
  std::uint64_t read(std::vector<Record>& records) const;
  /// As read() would return if nothing were written meanwhile.
  std::uint64_t overwritten() const;

 private:
  Ring(std::byte* memory, std::uint32_t entries);
  Entry& entry(std::uint64_t position) const { return entries_[position & (size_ - 1)]; }
  bool read_entry(std::uint64_t position, Record& record) const;

  RingHeader* header_ = nullptr;
  Entry* entries_ = nullptr;
  std::uint64_t size_ = 0;  // what was checked: the header is another process's
};

}  // namespace tandem::trace::detail
