// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/cpu.hpp"

#if defined(__SANITIZE_THREAD__)
#define TANDEM_RCU_INSTRUMENTED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TANDEM_RCU_INSTRUMENTED 1
#endif
#endif

/// Keeps UndefinedBehaviorSanitizer from asking whether the address of a thread-local variable is
/// null: g++ takes the answer from the flags of the addition that makes the address, and the linker
/// relaxes that addition into an instruction that sets none. (g++ makes one check of null and
/// alignment, and decides after inlining: only naming both leaves it out.)
#define TANDEM_RCU_READER_PATH __attribute__((no_sanitize("null", "alignment")))

/// What the inline reader path touches. Private: rcu.hpp alone includes it from outside the module.
namespace tandem::rcu::detail {

/// *object, a thread-local variable. Inlined atomics have checks of their own, which
/// TANDEM_RCU_READER_PATH does not reach: hides from them how the address was made.
template <class T>
TANDEM_RCU_READER_PATH inline T& here(T* object) noexcept {
#if defined(__SANITIZE_ADDRESS__)
  asm("" : "+r"(object));
#endif
  return *object;
}

struct Core;
struct Queue;
extern constinit Queue no_queue;  // has room for nothing

/// Whether ThreadSanitizer watches. It knows neither membarrier nor stand-alone fences, so readers
/// then use sequentially consistent stores and full fences.
#ifdef TANDEM_RCU_INSTRUMENTED
inline constexpr bool kInstrumented = true;
#else
inline constexpr bool kInstrumented = false;
#endif
inline constexpr std::memory_order kReaderOrder =
    kInstrumented ? std::memory_order_seq_cst : std::memory_order_release;

/// Reader::generation and Reader::plain of a reader that no domain knows of; no process generation.
inline constexpr std::uint64_t kDetached = ~std::uint64_t{0};

/// The sequence advances by kStep; its low bits stay 1. Only in a reader's state do they count how
/// deep its sections are nested, so one word says both and one store changes both. What is nested
/// deeper than they can count is counted in Reader::deeper.
inline constexpr std::uint64_t kStep = std::uint64_t{1} << 10;
inline constexpr std::uint64_t kNesting = kStep - 1;
inline constexpr std::uint64_t kFirstSequence = kStep + 1;

/// One thread in one domain. `state` is 0 outside sections, else the sequence at the outermost
/// lock(), or at the last quiescent state of a thread that is online, plus the nesting. The lines
/// belong to the thread; others touch them only in grace periods.
struct alignas(kCacheLine) Reader {
  std::atomic<std::uint64_t> state{0};  // owner writes; grace periods read
  std::atomic<std::uint32_t> wake{0};   // a sleeping grace period sets; owner clears
  pid_t thread = 0;                     // under core->registry: the kernel's number of the owner
  // `generation` where fences are left to others: the owner's; Core::make_nobody_plain() resets it.
  std::atomic<std::uint64_t> plain{kDetached};
  std::uint64_t generation = kDetached;  // owner only: process generation in which it was attached
  Queue* queue = &no_queue;              // owner only: where retired objects go
  Core* core = nullptr;                  // owner only: holds a reference
  std::uint64_t domain_id = 0;           // owner only: rcu_domain::id_
  Reader* next = nullptr;                // under core->registry
  Reader* previous = nullptr;            // under core->registry

  std::atomic<int> boosted{0};  // the policy to go back to, plus 1: set under core->registry
  // Owner only, in handlers, too: counted in core->plain_readers.
  std::atomic<bool> is_plain{false};
  bool waits = false;        // owner only, in handlers, too: see Core::Waiting
  bool online = false;       // owner only: in a quiescent_reader
  bool held = false;         // owner only: one that may be offline refers to it
  std::uint32_t deeper = 0;  // owner only, in handlers, too: sections beyond kNesting

  std::uint64_t nesting() const noexcept {
    return state.load(std::memory_order_relaxed) & kNesting;
  }
  // A grace period may find only what these two store, and learn from it that an earlier section
  // has ended: (B), (C). What was released before it is not released by a later plain store, so
  // these release, too.

  /// Enters a section inside the one that `inside`, the state, tells of.
  TANDEM_RCU_READER_PATH void nest(std::uint64_t inside) noexcept {
    if ((inside & kNesting) == kNesting) [[unlikely]] {
      ++deeper;
    } else {
      state.store(inside + 1, kReaderOrder);
    }
  }
  /// Leaves it.
  TANDEM_RCU_READER_PATH void unnest(std::uint64_t inside) noexcept {
    if ((inside & kNesting) == kNesting && deeper != 0) [[unlikely]] {
      --deeper;
    } else {
      state.store(inside - 1, kReaderOrder);
    }
  }
};

/// Of no domain: what `last_reader` names at first.
extern constinit Reader no_reader;

// Initial-exec: one addition to the thread pointer instead of a call, also in shared libraries.
#define TANDEM_RCU_TLS __attribute__((tls_model("initial-exec")))
extern constinit thread_local Reader default_reader TANDEM_RCU_TLS;
/// The reader that the thread used last in a domain other than the default one. One word, loaded
/// once: a signal handler may replace it at any instruction.
extern constinit thread_local Reader* last_reader TANDEM_RCU_TLS;
#undef TANDEM_RCU_TLS

/// What all domains of a process share. A page of its own, which the kernel wipes in a forked
/// child.
struct alignas(4096) Process {
  std::atomic<std::uint64_t> generation{0};
};
extern constinit Process process;
/// Whether readers may leave the fence to membarrier. Set when the process begins, reset when the
/// kernel refuses that after all.
extern constinit std::atomic<bool> light_readers;

/// A thread that is online is in a section from one quiescent state to the next.
void go_online(Reader& self) noexcept;
void go_offline(Reader& self) noexcept;

/// Wakes the grace periods that sleep until `reader` leaves its section.
void wake_waiters(Reader& reader) noexcept;

}  // namespace tandem::rcu::detail
