// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "tandem/base/cpu.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/pcie/detail/atc.hpp"

namespace tandem::pcie::detail {

/// The in-flight slots of an endpoint, each of which stands for one Window or one access to an I/O
/// region, and the invalidation requests that wait for some of them. Some are kept for windows.
/// Accesses that find none free are a crowd, which every invalidation waits for, whatever its
/// space.
///
/// The crowd has two phases, of which arrivals join the current one. A request waits for both; the
/// other becomes the current one as soon as nobody is in it while the current one is waited for. So
/// a request waits for those who were there when it came, and at most for those who came before an
/// older request was over: however many arrive, they cannot hold it up for ever.
///
/// A slot is free or busy, for one space. Its owner makes it busy and then looks the translations
/// up inside a reader section. An invalidation drops translations, waits for a grace period, and
/// then calls wait_for(): a section that still found the translations has ended by then, so
/// wait_for() sees its slot; a later section does not find them, and its owner gives the slot back.
///
/// wait_for() blocks nobody: it marks the slots that match and remembers the request with a bit for
/// each. An owner frees an unmarked slot by one compare-exchange. If that fails the slot is marked:
/// it frees it under the mutex, and takes its bit from every request. The mutex is held while a
/// request's slots are marked, so the bits are there when the owner of a marked slot comes, and the
/// slot's next owner is marked only after the bits of this one are gone.
///
/// Thread safety: all calls, from any thread; release() from the owner. The mutex is a leaf.
class Slots {
 public:
  static constexpr std::uint32_t kCount = 62;
  static constexpr std::uint32_t kForAccesses = 46;

  /// Takes a slot for a window of `space`, looking from `hint` on; none when all are busy.
  std::optional<std::uint32_t> claim(SpaceKey space, unsigned hint) {
    return claim_below(kCount, space, hint);
  }
  /// Takes one for an access, or joins the crowd. What is returned is given to release().
  std::uint32_t claim_or_join(SpaceKey space, unsigned hint);
  /// Returns: whether somebody may have waited for it: see take_completed(), and call completed()
  /// in the end.
  bool release(std::uint32_t slot);

  /// Lets `request` wait for the slots that are busy for `space` (for any PASID when it is empty),
  /// and for the crowd.
  /// An older request with the same ITAG is forgotten: the tag is in use again, so it timed out.
  /// Returns: whether there are any.
  bool wait_for(const iommu::AtsInvalidation& request, std::optional<SpaceKey> space);
  /// A request that waits for nothing any more; each is returned once.
  std::optional<iommu::AtsInvalidation> take_completed();
  void completed();
  /// Whether every slot is free, and the crowd gone: nobody reaches memory through one.
  bool quiet() const;
  /// Whether, besides, nobody is between release() and completed(). Not for who may be there
  /// itself, as a handler that completed() comes after.
  bool idle() const;

 private:
  // A slot's state: free, or (space, busy) and perhaps marked.
  static constexpr std::uint32_t kFree = 0;
  static constexpr std::uint32_t kBusy = 1;
  static constexpr std::uint32_t kMarked = 2;
  static constexpr unsigned kSpaceShift = 2;
  static_assert(SpaceKey::kBits + kSpaceShift <= 32);

  struct alignas(kCacheLine) Slot {
    std::atomic<std::uint32_t> state{kFree};  // written by owners; kMarked under mutex_
  };
  struct Waiting {
    bool used = false;
    iommu::AtsInvalidation request;
    std::uint64_t slots = 0;  // bit i: slot i; behind them, the phases of the crowd
    bool over() const { return slots == 0; }
  };
  static constexpr std::uint32_t kPhases = 2;
  static_assert(kForAccesses < kCount && kCount + kPhases <= 64);
  static constexpr std::size_t kItags = 32;
  static constexpr std::uint64_t bit(std::uint32_t slot) { return std::uint64_t{1} << slot; }

  std::optional<std::uint32_t> claim_below(std::uint32_t count, SpaceKey space, unsigned hint);
  void leave_crowd(std::uint32_t phase);
  /// Nobody waits for `slot` any more.
  void clear_locked(std::uint32_t slot) TANDEM_REQUIRES(mutex_);
  /// Lets arrivals join the other phase, if nobody is in it and somebody waits for this one.
  void turn_locked() TANDEM_REQUIRES(mutex_);

  std::array<Slot, kCount> slots_;
  std::atomic<std::uint32_t> completing_{0};
  mutable Mutex mutex_;
  std::array<std::uint32_t, kPhases> crowd_ TANDEM_GUARDED_BY(mutex_){};  // accesses
  std::uint32_t phase_ TANDEM_GUARDED_BY(mutex_) = 0;                     // the current one
  std::array<Waiting, kItags> waiting_ TANDEM_GUARDED_BY(mutex_);         // by ITAG
};

}  // namespace tandem::pcie::detail
