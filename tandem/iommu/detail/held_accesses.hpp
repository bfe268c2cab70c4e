// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "tandem/base/mutex.hpp"
#include "tandem/iommu/detail/generations.hpp"
#include "tandem/iommu/iommu.hpp"

namespace tandem::iommu::detail {

/// The accesses that outlast the sections in which they were translated: those to I/O regions,
/// which may block.
///
/// An access begins inside the section, with the stamp of its translation. A fence waits for a
/// grace period and then looks: the section of whoever found a translation that was invalidated
/// ahead of the fence has ended, so its access is here, and its stamp is void. An access whose
/// stamp holds belongs to somebody else, and nobody waits for it however long it lasts. As for
/// devices, no thread blocks: the command queue stands at the fence until the last such access has
/// ended or been given up.
///
/// Whether any is left and whether the queue waits change under one lock: the end of none gets lost
/// between the two.
///
/// Thread safety: all calls, from any thread; the mutex is a leaf.
class HeldAccesses {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit HeldAccesses(const Generations& generations) : generations_(generations) {}

  /// Returns: what end() takes.
  std::uint32_t begin(const Stamp& stamp);
  /// Returns: whether what the queue waits for has come.
  [[nodiscard]] bool end(std::uint32_t access);
  /// Gives up those that were to be over by `now`; returns as end().
  [[nodiscard]] bool expire(TimePoint now);

  /// Whether no access runs whose translation is void; else the queue waits for those, for each
  /// until `deadline`, or the one that was named before, at most.
  [[nodiscard]] bool none_void_or_wait(TimePoint deadline);
  /// Whether one was given up since the last call.
  bool take_timed_out();
  /// When expire() has something to do; in the past where what the queue waits for has come.
  std::optional<TimePoint> next_deadline() const;
  /// The queue runs: it waits for nothing.
  void stop_waiting() { waits_.store(false, std::memory_order_relaxed); }
  /// Whether the queue waits. A hint, without the lock.
  bool waited_for() const { return waits_.load(std::memory_order_relaxed); }
  /// Whether no access runs, but those that were given up.
  bool idle() const;

 private:
  struct Access {
    enum class State : std::uint8_t { kFree, kRunning, kWaitedFor, kGivenUp };
    State state = State::kFree;
    Stamp stamp;
    TimePoint deadline;  // where it is waited for
  };
  bool ready_locked() const TANDEM_REQUIRES(mutex_);

  const Generations& generations_;
  mutable Mutex mutex_;
  std::vector<Access> accesses_ TANDEM_GUARDED_BY(mutex_);
  std::vector<std::uint32_t> free_ TANDEM_GUARDED_BY(mutex_);
  bool timed_out_ TANDEM_GUARDED_BY(mutex_) = false;
  std::atomic<bool> waits_{false};  // set under mutex_; cleared by the queue
};

}  // namespace tandem::iommu::detail
