// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

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
/// They are a list of what their owners keep, which takes no memory: there is no error to handle
/// amid an access.
///
/// Thread safety: all calls, from any thread; begin(), move() and end() from the owner of the
///                access. The mutex is a leaf.
class HeldAccesses {
 public:
  using Access = Hold::Access;
  using TimePoint = std::chrono::steady_clock::time_point;

  /// The accesses that had begun at some time, and when not to wait for them any more.
  struct Earlier {
    std::uint64_t last = 0;
    TimePoint deadline;
  };

  explicit HeldAccesses(const Generations& generations) : generations_(generations) {
    all_.previous = all_.next = &all_;
  }

  /// `access` stays where it is until end(), or until it goes to `to`.
  void begin(const Stamp& stamp, Access& access);
  void move(Access& from, Access& to);
  /// Returns: whether what the queue waits for has come.
  [[nodiscard]] bool end(Access& access);
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
  /// Those that run, for a reset, or for ddtp turned off, which waits behind a grace period for
  /// those of them whose translations are void. Later ones, which found what is new, are none of
  /// its business: it ends however many there are.
  Earlier earlier(TimePoint deadline) const;
  /// Whether none of them is left that was not given up, or the deadline has come.
  bool over(const Earlier& earlier) const;
  /// Gives up those of them that are left: no fence waits for what the reset did not. Returns as
  /// end().
  [[nodiscard]] bool give_up(const Earlier& earlier);

 private:
  static void link(Access& before, Access& access, Access& behind);
  void give_up_locked(Access& access) TANDEM_REQUIRES(mutex_);
  bool runs_void_locked(const Access& access, const Earlier& earlier) const TANDEM_REQUIRES(mutex_);
  bool ready_locked() const TANDEM_REQUIRES(mutex_);

  const Generations& generations_;
  mutable Mutex mutex_;
  Access all_ TANDEM_GUARDED_BY(mutex_);  // none itself: before the first, behind the last
  std::uint64_t begun_ TANDEM_GUARDED_BY(mutex_) = 0;
  bool timed_out_ TANDEM_GUARDED_BY(mutex_) = false;
  std::atomic<bool> waits_{false};  // set under mutex_; cleared by the queue
};

}  // namespace tandem::iommu::detail
