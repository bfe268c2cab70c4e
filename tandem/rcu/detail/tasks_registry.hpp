// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

#include "tandem/base/cpu.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/rcu/detail/reader.hpp"

/// What the three Tasks flavours share: who is a task, and waiting until none holds a grace period
/// up. As in the kernel, a flavour is one thing per process; its domains differ in their callbacks.
namespace tandem::rcu::detail {

/// One thread in one flavour. The line belongs to the thread; others touch it in grace periods.
struct alignas(kCacheLine) TaskEntry {
  std::atomic<std::uint64_t> state{0};   // owner writes, grace periods read; 0: holds nothing up
  std::atomic<std::uint32_t> wake{0};    // a sleeping grace period sets; owner clears
  std::uint32_t registrations = 0;       // owner only
  std::uint64_t generation = kDetached;  // owner only: process generation in which it was attached
  std::int32_t tid = 0;                  // under Registry::mutex
  TaskEntry* next = nullptr;             // under Registry::mutex
  TaskEntry* previous = nullptr;         // under Registry::mutex
};

/// The part of a flavour that belongs to one process.
struct Registry {
  Registry(std::uint64_t process_generation, Registry* parents)
      : generation(process_generation), parent(parents) {}

  const std::uint64_t generation;
  Registry* const parent;  // never used; keeps what the child abandoned reachable

  std::atomic<std::uint32_t> moved{0};  // futex: an entry that someone waited for has moved
  Mutex mutex;
  TaskEntry* entries TANDEM_GUARDED_BY(mutex) = nullptr;
};

/// What a grace period accepts as quiescence; only the rude flavour has a choice.
enum class Evidence { kAny, kBlockedOnly };

/// A flavour: constants that say how it waits, and its process-wide state.
struct Flavour {
  /// Whether `entry` may be in a region that began before the grace period `target`. Called with
  /// the registry's mutex held.
  bool (*const holds)(TaskEntry& entry, std::uint64_t target, Evidence evidence) noexcept;
  /// Runs between the advance of `sequence` and the first look at the entries. (F)
  void (*const fence)() noexcept;
  /// Ends the region of the thread that is about to wait, after the advance; or null.
  void (*const end_own_region)() noexcept;
  /// Entries do not wake who waits for them; looking costs system calls.
  const bool observed;
  const char* const planted_fault_name;

  // Written by grace periods, read by readers: the line travels as often as what they protect.
  alignas(kCacheLine) std::atomic<std::uint64_t> sequence{1};
  alignas(kCacheLine) std::atomic<std::uint64_t> completed{0};  // nothing below it is held up
  std::atomic<Registry*> registry{nullptr};
};

/// Makes `entry`, the calling thread's, one that grace periods of `flavour` look at, until detach()
/// or the thread's exit. Idempotent.
///
/// Async-signal-safe once prepare() has returned in this process: signals are blocked while the
/// registry's mutex is held, and who waits for a grace period is attached before.
void attach(Flavour& flavour, TaskEntry& entry) noexcept;
void detach(Flavour& flavour, TaskEntry& entry) noexcept;

/// Sets hooks and memory of `flavour` up, so that attach() allocates nothing.
void prepare(Flavour& flavour) noexcept;

/// Wakes the grace periods that sleep until `entry` moves. Async-signal-safe.
void wake_waiters(Flavour& flavour, TaskEntry& entry) noexcept;

}  // namespace tandem::rcu::detail
