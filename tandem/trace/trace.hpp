// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "tandem/base/result.hpp"
#include "tandem/trace/event.hpp"

#if __has_include(<sys/sdt.h>)
#include <sys/sdt.h>
#define TANDEM_TRACE_PROBE(name, a, b) DTRACE_PROBE2(tandem, name, a, b)
#else
#define TANDEM_TRACE_PROBE(name, a, b) static_cast<void>(0)
#endif

/// What happened when, at a cost that may stay in shipped code.
///
/// Module overview. `TANDEM_TRACE(queue_submit, queue_id, tag)` is a relaxed load and a branch that
/// falls through while its category is off. While it is on, the event goes to a ring of the calling
/// thread, with time, core and up to four words: no lock, no system call (the clock is in the vDSO,
/// the core in the thread's rseq area), the oldest entry overwritten. `snapshot()` merges the rings
/// of all threads, also of those that have exited, while the threads go on writing. Built where
/// <sys/sdt.h> exists, every trace point is also a static probe `tandem:<name>` for perf, bpftrace
/// and SystemTap, whether or not tracing is on.
///
/// Several processes: where TANDEM_TRACE_DIR names a directory when a process starts, it records
/// from its start on (TANDEM_TRACE_CATEGORIES: which; TANDEM_TRACE_ENTRIES: events a thread keeps)
/// and each ring is a file there, mapped shared. So what a process recorded is there after it
/// ended, also by SIGKILL: collect() reads it.
///
/// Progress: emit() is wait-free but for a thread's first event, which allocates. A reader never
///           holds up a writer; it leaves out, and counts, what is overwritten under it.
/// Fork:     a child keeps the records up to the fork and goes on in its copy of the ring; one that
///           records to files begins its own. A child of a raw clone() that shares no memory would
///           write into its parent's files: it must not emit before it calls exec.
/// Left out: formats and printing; the caller decides what to do with the records.
namespace tandem::trace {

/// What TANDEM_TRACE looks its first argument up in.
namespace events {
#define TANDEM_TRACE_CONSTANT(name, enumerator, ...) \
  inline constexpr Event name = Event::enumerator;
TANDEM_TRACE_EVENTS(TANDEM_TRACE_CONSTANT)
#undef TANDEM_TRACE_CONSTANT
}  // namespace events

namespace detail {
/// The category of an event, as a constant.
template <Event kEvent>
inline constexpr Categories kCategoryOf = kNoCategories;
#define TANDEM_TRACE_CATEGORY(name, enumerator, category, ...) \
  template <>                                                  \
  inline constexpr Categories kCategoryOf<Event::enumerator> = \
      static_cast<Categories>(Category::category);
TANDEM_TRACE_EVENTS(TANDEM_TRACE_CATEGORY)
#undef TANDEM_TRACE_CATEGORY
}  // namespace detail

/// Entries that each thread's ring keeps in memory.
inline constexpr std::size_t kRingEntries = 4096;

/// One event as it was emitted.
struct Record {
  std::uint64_t time_ns = 0;  // CLOCK_MONOTONIC
  Event event{};
  std::uint16_t cpu = 0;      // that the emitter ran on; kNoCpu if unknown
  std::uint32_t thread = 0;   // gettid() of the emitter, before any fork
  std::uint32_t process = 0;  // its getpid() when its ring was made
  std::array<std::uint64_t, 4> arguments{};

  static constexpr std::uint16_t kNoCpu = 0xffff;
  /// What mark() was given.
  std::string text() const;
};

/// Records exactly the events of `categories` from now on. From none to some starts a new recording
/// and forgets the last one; kNoCategories stops and keeps its records.
///
/// Thread safety: any thread. An emit() that overlaps the call may fall on either side of it.
void enable(Categories categories) noexcept;

/// Every record of this process still in a ring since the recording began, oldest first.
///
/// Records of one thread keep their order. An entry that is overwritten during the call is left
/// out. Thread safety: any thread, while others emit.
std::vector<Record> snapshot();

/// Events of this recording that are in no ring any more: overwritten, or no memory for a ring.
std::uint64_t dropped() noexcept;

/// A thread of a Recording.
struct Thread {
  std::uint32_t process = 0, thread = 0;
  std::string process_name, name;  // as the kernel's `comm` when the thread's ring was made
};

/// What processes left in a directory.
struct Recording {
  std::vector<Record> records;  // oldest first
  std::vector<Thread> threads;  // the last ones that wrote to each ring
  std::uint64_t dropped = 0;    // events that were recorded and are not among `records`
  std::size_t unreadable = 0;   // files that are no rings of this version
};

/// Reads the rings that processes with TANDEM_TRACE_DIR=`directory` have left or are writing.
/// Errors: the errno of opening the directory; a file in it that is no ring is counted instead.
Result<Recording> collect(const std::string& directory);

namespace detail {
inline constinit std::atomic<Categories> enabled{kNoCategories};  // enable() writes; points read

/// An integer, enumerator or pointer as the 64 bits that a record holds.
template <class T>
std::uint64_t word(T value) noexcept {
  if constexpr (std::is_pointer_v<T>) {
    return reinterpret_cast<std::uintptr_t>(value);
  } else {
    return static_cast<std::uint64_t>(value);
  }
}
}  // namespace detail

/// Whether any of `categories` is being recorded.
inline bool enabled(Categories categories) noexcept {
  return (detail::enabled.load(std::memory_order_relaxed) & categories) != 0;
}

/// Records one event whether or not tracing is on; TANDEM_TRACE asks first.
///
/// Thread safety: any thread; not from a signal handler. Allocates at a thread's first event.
void emit(Event event, std::array<std::uint64_t, 4> arguments) noexcept;

/// Records that the program has come to a point that a person looks for: at most 32 bytes of text.
void mark(std::string_view text) noexcept;

namespace detail {
template <class... Values>
[[gnu::cold, gnu::noinline]] void emit_values(Event event, Values... values) noexcept {
  static_assert(sizeof...(Values) <= 4);
  emit(event, {word(values)...});
}
}  // namespace detail

}  // namespace tandem::trace

/// A trace point: TANDEM_TRACE(park, queue, pasid), with two to four arguments: integers,
/// enumerators or pointers. The first two are evaluated at most once each, plus once by a static
/// probe, so they must have no side effect; the others only while the event is recorded.
#define TANDEM_TRACE(name, a, b, ...)                                                             \
  do {                                                                                            \
    TANDEM_TRACE_PROBE(name, ::tandem::trace::detail::word(a), ::tandem::trace::detail::word(b)); \
    if (::tandem::trace::enabled(                                                                 \
            ::tandem::trace::detail::kCategoryOf<::tandem::trace::events::name>)) [[unlikely]] {  \
      ::tandem::trace::detail::emit_values(::tandem::trace::events::name, a,                      \
                                           b __VA_OPT__(, ) __VA_ARGS__);                         \
    }                                                                                             \
  } while (false)
