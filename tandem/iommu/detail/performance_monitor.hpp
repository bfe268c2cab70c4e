// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

#include "tandem/base/cpu.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/iommu/detail/config.hpp"
#include "tandem/iommu/detail/interrupts.hpp"
#include "tandem/iommu/detail/page_table.hpp"

namespace tandem::iommu::detail {

/// Whose an event is, as filters ask.
struct EventIds {
  DeviceId device;
  std::optional<Pasid> process = std::nullopt;
  std::optional<std::uint32_t> gscid = std::nullopt;
  std::optional<std::uint32_t> pscid = std::nullopt;
};

/// What one translation walked, and whose it is.
struct WalkCounts {
  EventIds ids;
  unsigned tlb_misses = 0;
  TableLoads loads = {};
};

/// The hardware performance monitor: counters of events, and one of nanoseconds.
///
/// While no counter is programmed for an event, the event costs the relaxed load in counts(). A
/// programmed one is counted exactly, by atomic additions to the one counter: requests of all
/// threads then share its line.
///
/// Methods that may raise pmip return whether it rose; the caller then signals it, with no lock
/// held.
///
/// Thread safety: any thread.
/// Spec: §6.19 to §6.23, "Performance-monitoring …". Nothing runs while nobody looks: an overflow
/// of
///       iohpmcycles is found by poll().
class PerformanceMonitor {
 public:
  static constexpr unsigned kCounters = 31;

  PerformanceMonitor(const Config& config, Interrupts& interrupts);

  /// Whether some counter counts `event`.
  bool counts(HpmEvent event) const noexcept {
    return (active_.load(std::memory_order_relaxed) & bit(event)) != 0;
  }
  bool counts_any() const noexcept { return active_.load(std::memory_order_relaxed) != 0; }
  /// Counts `times` events of which counts() was true.
  [[nodiscard]] bool count(HpmEvent event, const EventIds& ids, unsigned times = 1);
  /// Finds out whether iohpmcycles has overflowed.
  [[nodiscard]] bool poll();
  /// When it will, and interrupt. None: not while a clock can tell.
  std::optional<std::chrono::steady_clock::time_point> next_overflow() const;

  std::uint32_t overflows() const;  ///< iocountovf
  std::uint32_t inhibits() const { return inhibits_.load(std::memory_order_relaxed); }
  void write_inhibits(std::uint32_t value);
  std::uint64_t cycles() const;  ///< as of the last poll()
  void write_cycles(std::uint64_t value);
  /// Counter and selector `i` < options.counters belong together: those named i + 1.
  std::uint64_t counter(unsigned i) const;
  void write_counter(unsigned i, std::uint64_t value);
  std::uint64_t selector(unsigned i) const;
  /// `mask`: what is written. An event that does not exist leaves the one selected.
  void write_selector(unsigned i, std::uint64_t value, std::uint64_t mask);

  void reset();

 private:
  using Clock = std::chrono::steady_clock;
  struct alignas(kCacheLine) Counter {
    std::atomic<std::uint64_t> value{0};  // more bits than the counter has
  };

  static constexpr std::uint32_t bit(HpmEvent event) {
    return std::uint32_t{1} << static_cast<unsigned>(event);
  }
  /// Whether counter `i` is inhibited; bit 0 of iocountinh is that of iohpmcycles.
  static bool inhibited(std::uint32_t inhibits, unsigned i) {
    return (inhibits >> (i + 1) & 1) != 0;
  }
  bool advance_cycles_locked() TANDEM_REQUIRES(mutex_);
  void update_active_locked() TANDEM_REQUIRES(mutex_);

  const Config& config_;
  Interrupts& interrupts_;
  const std::uint64_t counter_mask_;
  const std::uint64_t cycles_mask_;

  // Written under mutex_, read by requests.
  alignas(kCacheLine) std::atomic<std::uint32_t> active_{0};  // bit: an event that is counted
  std::atomic<std::uint32_t> inhibits_{0};                    // iocountinh

  alignas(kCacheLine) std::array<std::atomic<std::uint64_t>, kCounters> selectors_{};
  std::array<Counter, kCounters> counters_{};
  mutable Mutex mutex_;
  std::uint64_t cycles_ TANDEM_GUARDED_BY(mutex_) = 0;  // iohpmcycles at as_of_
  Clock::time_point as_of_ TANDEM_GUARDED_BY(mutex_) = Clock::now();
};

}  // namespace tandem::iommu::detail
