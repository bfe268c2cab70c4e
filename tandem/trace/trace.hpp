// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <vector>

#if __has_include(<sys/sdt.h>)
#include <sys/sdt.h>
#define TANDEM_TRACE_PROBE(name, a, b) DTRACE_PROBE2(tandem, name, a, b)
#else
#define TANDEM_TRACE_PROBE(name, a, b) static_cast<void>(0)
#endif

/// What happened when, at a cost that may stay in shipped code.
///
/// Module overview. `TANDEM_TRACE(queue_submit, queue_id, tag)` is a relaxed load and a branch that
/// falls through while tracing is off. While it is on, the event goes to a ring of the calling
/// thread: no lock, no system call (the clock is in the vDSO), the oldest entry overwritten.
/// `snapshot()` merges the rings of all threads, also of those that have exited, while the threads
/// go on writing. Built where <sys/sdt.h> exists, every trace point is also a static probe
/// `tandem:<name>` for perf, bpftrace and SystemTap, whether or not tracing is on.
///
/// Left out: files, formats and printing; the caller decides what to do with the records.
namespace tandem::trace {

/// Name in probes and listings, enumerator, meaning of the two arguments.
#define TANDEM_TRACE_EVENTS(X)                                           \
  X(queue_submit, kQueueSubmit)               /* queue, tag */           \
  X(operation_begin, kOperationBegin)         /* queue, tag */           \
  X(operation_end, kOperationEnd)             /* queue, tag */           \
  X(page_request, kPageRequest)               /* PASID, IOVA */          \
  X(page_response, kPageResponse)             /* PASID, code */          \
  X(ats_invalidate, kAtsInvalidate)           /* PASID, IOVA */          \
  X(pasid_bind, kPasidBind)                   /* PASID, pid */           \
  X(pasid_unbind, kPasidUnbind)               /* PASID, pid */           \
  X(park, kPark)                              /* engine, queues */       \
  X(wake, kWake)                              /* engine, queue */        \
  X(fork_rebind, kForkRebind)                 /* queue, generation */    \
  X(queue_death, kQueueDeath)                 /* queue, reason */        \
  X(rcu_grace_period, kRcuGracePeriod)        /* domain, bound */        \
  X(rcu_grace_period_end, kRcuGracePeriodEnd) /* domain, bound */        \
  X(rcu_callbacks, kRcuCallbacks)             /* domain, queued words */ \
  X(rcu_stall, kRcuStall)                     /* domain, thread */

enum class Event : std::uint16_t {
#define TANDEM_TRACE_ENUMERATOR(name, enumerator) enumerator,
  TANDEM_TRACE_EVENTS(TANDEM_TRACE_ENUMERATOR)
#undef TANDEM_TRACE_ENUMERATOR
};

/// What TANDEM_TRACE looks its first argument up in.
namespace events {
#define TANDEM_TRACE_CONSTANT(name, enumerator) inline constexpr Event name = Event::enumerator;
TANDEM_TRACE_EVENTS(TANDEM_TRACE_CONSTANT)
#undef TANDEM_TRACE_CONSTANT
}  // namespace events

/// "queue_submit" for Event::kQueueSubmit; "unknown" for a value that is none.
std::string_view event_name(Event event) noexcept;

/// Entries that each thread's ring keeps.
inline constexpr std::size_t kRingEntries = 4096;

/// One event as it was emitted.
struct Record {
  std::uint64_t time_ns = 0;  // CLOCK_MONOTONIC
  Event event{};
  std::uint32_t thread = 0;  // gettid() of the emitter, before any fork
  std::uint64_t a = 0;
  std::uint64_t b = 0;
};

/// Starts a new recording, forgetting the last one, or stops it and keeps its records. No effect if
/// it is so already.
///
/// Thread safety: any thread. An emit() that overlaps the call may fall on either side of it.
void enable(bool on) noexcept;

/// Every record still in a ring since the recording began, oldest first.
///
/// Records of one thread keep their order. An entry that is overwritten during the call is left
/// out. Thread safety: any thread, while others emit.
std::vector<Record> snapshot();

/// Events of this recording that are in no ring any more: overwritten, or no memory for a ring.
std::uint64_t dropped() noexcept;

namespace detail {
inline constinit std::atomic<bool> enabled{false};  // enable() writes; every trace point reads

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

/// Whether a recording is running.
inline bool enabled() noexcept { return detail::enabled.load(std::memory_order_relaxed); }

/// Records one event whether or not tracing is on; TANDEM_TRACE asks first.
///
/// Thread safety: any thread; not from a signal handler. Allocates at a thread's first event.
/// Fork:          a child keeps the records up to the fork and goes on in the same ring.
void emit(Event event, std::uint64_t a, std::uint64_t b) noexcept;

}  // namespace tandem::trace

/// A trace point: TANDEM_TRACE(park, engine_id, queue_count). Arguments: integers or pointers,
/// evaluated at most once each, plus once by a static probe; so they must have no side effect.
#define TANDEM_TRACE(name, a, b)                                                                  \
  do {                                                                                            \
    TANDEM_TRACE_PROBE(name, ::tandem::trace::detail::word(a), ::tandem::trace::detail::word(b)); \
    if (::tandem::trace::enabled()) [[unlikely]] {                                                \
      ::tandem::trace::emit(::tandem::trace::events::name, ::tandem::trace::detail::word(a),      \
                            ::tandem::trace::detail::word(b));                                    \
    }                                                                                             \
  } while (false)
