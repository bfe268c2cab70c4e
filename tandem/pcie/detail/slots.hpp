// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "tandem/base/cpu.hpp"
#include "tandem/pcie/detail/atc.hpp"

namespace tandem::pcie::detail {

/// The in-flight slots of an endpoint: each stands for one Window.
///
/// A slot is free or busy. Its owner makes it busy, writes which space it is for, and then looks
/// the translations up inside a reader section. An invalidation drops translations, waits for a
/// grace period, and then scans the slots: a section that still found the translations has ended by
/// then, so the scan sees its slot; a later section does not find them, and its owner gives the
/// slot back.
///
/// Thread safety: all calls, from any thread; release() from the owner.
class Slots {
 public:
  static constexpr std::size_t kCount = 64;

  /// Takes a slot for `space`, looking from `hint` on; none when all are busy.
  std::optional<std::uint32_t> claim(SpaceKey space, unsigned hint);
  void release(std::uint32_t slot);
  /// Waits for the slots that were busy for `space` (for any PASID when it is empty) when called.
  /// Returns: whether all were released in time.
  bool wait(std::optional<SpaceKey> space, std::chrono::nanoseconds timeout);
  bool idle() const;

 private:
  static constexpr std::uint32_t kBusy = 1;
  static constexpr std::uint32_t kWaited = 2;    // somebody sleeps on the state
  static constexpr std::uint32_t kSequence = 4;  // the rest counts owners

  struct alignas(kCacheLine) Slot {
    std::atomic<std::uint32_t> state{0};  // written by owners; kWaited by invalidations
    std::atomic<std::uint32_t> space{0};  // written by the owner while busy
  };
  std::array<Slot, kCount> slots_;
};

}  // namespace tandem::pcie::detail
