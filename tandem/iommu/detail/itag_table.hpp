// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

#include "tandem/base/mutex.hpp"
#include "tandem/iommu/iommu.hpp"

namespace tandem::iommu::detail {

/// The ATS invalidation requests that await their Invalidate Completion, by ITAG.
///
/// A tag is free or outstanding. It becomes free when the device has sent all its completions, or
/// when the request times out; a completion that comes after that, or from another device, belongs
/// to nothing and is ignored. Tags are taken in turn, so that a late completion meets a new request
/// of the same tag only after kCount others; `AtsInvalidation::sequence` tells even these apart.
///
/// What the command queue waits for is kept here as well, so that "nothing is outstanding" and "the
/// queue waits" change under one lock: no completion gets lost between the two.
///
/// Thread safety: all calls, from any thread; the mutex is a leaf.
/// Spec: §4.1.4 "IOMMU PCIe ATS commands"; PCIe, "Invalidate Completion".
class ItagTable {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  static constexpr std::size_t kCount = 32;

  struct Tag {
    std::uint8_t itag = 0;
    std::uint32_t sequence = 0;
  };

  /// Takes a tag for a request to `device`; none while all are outstanding, and then the queue
  /// waits for one.
  std::optional<Tag> claim(DeviceId device, TimePoint deadline);
  /// Takes one of the `count` Invalidate Completions of a request, the `sequence`-th if given.
  /// Returns: whether what the queue waits for has come.
  bool complete(DeviceId device, std::uint8_t itag, unsigned count,
                std::optional<std::uint32_t> sequence);
  /// Ends the requests whose deadline is not after `now`, or, of a device that is gone, all.
  /// Returns: whether what the queue waits for has come.
  bool expire(TimePoint now);
  bool expire(DeviceId device);
  bool expire(Tag tag);
  /// Notes a request that nobody can complete.
  void note_time_out();

  /// When expire() has something to end; in the past where what the queue waits for has come. None:
  /// never, as things are.
  std::optional<TimePoint> next_deadline() const;
  /// Whether no request is outstanding; else the queue waits for that.
  bool none_outstanding_or_wait();
  /// Whether a request has timed out since the last call.
  bool take_timed_out();
  /// The queue runs: it waits for nothing.
  void stop_waiting() { waits_for_.store(Waits::kNothing, std::memory_order_relaxed); }
  /// Whether the queue waits. A hint, without the lock.
  bool waited_for() const { return waits_for_.load(std::memory_order_relaxed) != Waits::kNothing; }

 private:
  enum class Waits : std::uint8_t { kNothing, kTag, kAll };
  struct Request {
    bool outstanding = false;
    DeviceId device;
    std::uint32_t sequence = 0;
    unsigned received = 0;  // completions
    TimePoint deadline;
  };

  /// Whether the queue can go on.
  bool ready_locked() const TANDEM_REQUIRES(mutex_);
  void end_locked(Request& request, bool timed_out) TANDEM_REQUIRES(mutex_);
  template <class Which>
  bool expire_if(Which which);

  mutable Mutex mutex_;
  std::array<Request, kCount> requests_ TANDEM_GUARDED_BY(mutex_);
  std::size_t outstanding_ TANDEM_GUARDED_BY(mutex_) = 0;
  std::uint32_t sequence_ TANDEM_GUARDED_BY(mutex_) = 0;
  bool timed_out_ TANDEM_GUARDED_BY(mutex_) = false;
  std::atomic<Waits> waits_for_{Waits::kNothing};  // set under mutex_; cleared by the queue
};

}  // namespace tandem::iommu::detail
