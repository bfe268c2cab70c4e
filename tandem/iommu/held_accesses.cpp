// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/held_accesses.hpp"

#include <algorithm>
#include <utility>

namespace tandem::iommu::detail {

std::uint32_t HeldAccesses::begin(const Stamp& stamp) {
  const MutexLock lock(mutex_);
  if (free_.empty()) {
    free_.push_back(static_cast<std::uint32_t>(accesses_.size()));
    accesses_.emplace_back();
  }
  const std::uint32_t access = free_.back();
  free_.pop_back();
  accesses_[access] = {Access::State::kRunning, stamp, {}};
  return access;
}

bool HeldAccesses::end(std::uint32_t access) {
  const MutexLock lock(mutex_);
  accesses_[access].state = Access::State::kFree;
  free_.push_back(access);
  return ready_locked();
}

bool HeldAccesses::expire(TimePoint now) {
  const MutexLock lock(mutex_);
  for (Access& access : accesses_) {
    if (access.state != Access::State::kWaitedFor || access.deadline > now) continue;
    access.state = Access::State::kGivenUp;
    timed_out_ = true;
  }
  return ready_locked();
}

bool HeldAccesses::none_void_or_wait(TimePoint deadline) {
  const MutexLock lock(mutex_);
  bool none = true;
  for (Access& access : accesses_) {
    if (access.state == Access::State::kRunning && !generations_.holds(access.stamp)) {
      access.state = Access::State::kWaitedFor;
      access.deadline = deadline;
    }
    none = none && access.state != Access::State::kWaitedFor;
  }
  if (!none) waits_.store(true, std::memory_order_relaxed);
  return none;
}

bool HeldAccesses::take_timed_out() {
  const MutexLock lock(mutex_);
  return std::exchange(timed_out_, false);
}

std::optional<HeldAccesses::TimePoint> HeldAccesses::next_deadline() const {
  const MutexLock lock(mutex_);
  if (!waits_.load(std::memory_order_relaxed)) return std::nullopt;
  if (ready_locked()) return TimePoint{};
  auto earliest = TimePoint::max();
  for (const Access& access : accesses_) {
    if (access.state != Access::State::kWaitedFor) continue;
    earliest = std::min(earliest, access.deadline);
  }
  return earliest == TimePoint::max() ? std::nullopt : std::optional(earliest);
}

bool HeldAccesses::idle() const {
  const MutexLock lock(mutex_);
  return std::all_of(accesses_.begin(), accesses_.end(), [](const Access& access) {
    return access.state == Access::State::kFree || access.state == Access::State::kGivenUp;
  });
}

bool HeldAccesses::ready_locked() const {
  return waits_.load(std::memory_order_relaxed) &&
         std::none_of(accesses_.begin(), accesses_.end(), [](const Access& access) {
           return access.state == Access::State::kWaitedFor;
         });
}

}  // namespace tandem::iommu::detail
