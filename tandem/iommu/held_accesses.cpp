// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/held_accesses.hpp"

#include <algorithm>
#include <utility>

namespace tandem::iommu::detail {

void HeldAccesses::link(Access& before, Access& access, Access& behind) {
  access.previous = &before;
  access.next = &behind;
  before.next = &access;
  behind.previous = &access;
}

void HeldAccesses::begin(const Stamp& stamp, Access& access) {
  const MutexLock lock(mutex_);
  access.state = Access::State::kRunning;
  access.stamp = stamp;
  access.serial = ++begun_;
  link(*all_.previous, access, all_);
}

void HeldAccesses::move(Access& from, Access& to) {
  const MutexLock lock(mutex_);
  to = from;
  link(*to.previous, to, *to.next);
}

bool HeldAccesses::end(Access& access) {
  const MutexLock lock(mutex_);
  access.previous->next = access.next;
  access.next->previous = access.previous;
  return ready_locked();
}

bool HeldAccesses::expire(TimePoint now) {
  const MutexLock lock(mutex_);
  for (Access* access = all_.next; access != &all_; access = access->next) {
    if (access->state == Access::State::kWaitedFor && access->deadline <= now) {
      give_up_locked(*access);
    }
  }
  return ready_locked();
}

void HeldAccesses::give_up_locked(Access& access) {
  access.state = Access::State::kGivenUp;
  timed_out_ = true;
}

bool HeldAccesses::none_void_or_wait(TimePoint deadline) {
  const MutexLock lock(mutex_);
  bool none = true;
  for (Access* access = all_.next; access != &all_; access = access->next) {
    if (access->state == Access::State::kRunning && !generations_.holds(access->stamp)) {
      access->state = Access::State::kWaitedFor;
      access->deadline = deadline;
    }
    none = none && access->state != Access::State::kWaitedFor;
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
  for (const Access* access = all_.next; access != &all_; access = access->next) {
    if (access->state != Access::State::kWaitedFor) continue;
    earliest = std::min(earliest, access->deadline);
  }
  return earliest == TimePoint::max() ? std::nullopt : std::optional(earliest);
}

HeldAccesses::Earlier HeldAccesses::earlier(TimePoint deadline) const {
  const MutexLock lock(mutex_);
  return {begun_, deadline};
}

bool HeldAccesses::over(const Earlier& earlier) const {
  const MutexLock lock(mutex_);
  for (const Access* access = all_.next; access != &all_; access = access->next) {
    if (!runs_void_locked(*access, earlier)) continue;
    return std::chrono::steady_clock::now() >= earlier.deadline;
  }
  return true;
}

bool HeldAccesses::give_up(const Earlier& earlier) {
  const MutexLock lock(mutex_);
  for (Access* access = all_.next; access != &all_; access = access->next) {
    if (runs_void_locked(*access, earlier)) give_up_locked(*access);
  }
  return ready_locked();
}

bool HeldAccesses::runs_void_locked(const Access& access, const Earlier& earlier) const {
  const bool runs =
      access.state == Access::State::kRunning || access.state == Access::State::kWaitedFor;
  return runs && access.serial <= earlier.last && !generations_.holds(access.stamp);
}

bool HeldAccesses::ready_locked() const {
  if (!waits_.load(std::memory_order_relaxed)) return false;
  for (const Access* access = all_.next; access != &all_; access = access->next) {
    if (access->state == Access::State::kWaitedFor) return false;
  }
  return true;
}

}  // namespace tandem::iommu::detail
