// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/page_request.hpp"

#include <algorithm>
#include <limits>

#include "tandem/base/futex.hpp"
#include "tandem/base/planted_fault.hpp"

namespace tandem::pcie::detail {

using Clock = std::chrono::steady_clock;
using Code = iommu::PageResponse::Code;

void PageRequestGroups::set_allocation(std::uint32_t allocation) {
  const MutexLock lock(mutex_);
  allocation_ = allocation;
  returned_locked();
}

std::uint32_t PageRequestGroups::allocation() const {
  const MutexLock lock(mutex_);
  return allocation_;
}

std::uint32_t PageRequestGroups::outstanding() const {
  const MutexLock lock(mutex_);
  return outstanding_;
}

/// A group or credits came back.
void PageRequestGroups::returned_locked() {
  returns_.fetch_add(1, std::memory_order_relaxed);
  if (claimers_ != 0) futex_wake(returns_, std::numeric_limits<int>::max());
}

std::optional<std::uint16_t> PageRequestGroups::try_claim_locked(std::optional<iommu::Pasid> pasid,
                                                                 iommu::Iova page,
                                                                 std::uint32_t pages) {
  if (outstanding_ + pages > allocation_) return std::nullopt;
  for (std::size_t i = 0; i < kCount; ++i) {
    const std::size_t group = next_++ % kCount;
    if (states_[group].load(std::memory_order_relaxed) != kFree) continue;
    groups_[group] = {pasid, page, pages};
    states_[group].store(kWaiting, std::memory_order_relaxed);
    outstanding_ += pages;
    return static_cast<std::uint16_t>(group);
  }
  return std::nullopt;
}

std::optional<std::uint16_t> PageRequestGroups::claim(std::optional<iommu::Pasid> pasid,
                                                      iommu::Iova page, std::uint32_t pages,
                                                      std::chrono::nanoseconds timeout) {
  std::optional<Clock::time_point> deadline;  // of who has to wait
  std::uint64_t ends = 0;
  for (bool waits = false;;) {
    std::uint32_t returns = 0;
    {
      const MutexLock lock(mutex_);
      if (waits) --claimers_;
      if (waits && ends != ends_) return std::nullopt;
      ends = ends_;
      if (const auto group = try_claim_locked(pasid, page, pages)) return group;
      const auto now = Clock::now();
      if (!deadline) deadline = now + timeout;
      if (pages > allocation_ || now >= *deadline) return std::nullopt;
      waits = true;
      ++claimers_;
      returns = returns_.load(std::memory_order_relaxed);
    }
    futex_wait(returns_, returns, std::max(Clock::duration{0}, *deadline - Clock::now()));
  }
}

void PageRequestGroups::note_sleep(std::uint16_t group) {
  if (planted_fault("pcie-sleeps-unnoticed")) return;
  const MutexLock lock(mutex_);
  groups_[group].sleeps = true;
}

std::optional<Code> PageRequestGroups::wait(std::uint16_t group, std::chrono::nanoseconds timeout) {
  std::atomic<std::uint32_t>& state = states_[group];
  if (state.load(std::memory_order_acquire) == kWaiting && timeout.count() > 0) {
    const auto deadline = Clock::now() + timeout;
    note_sleep(group);
    for (auto left = timeout; state.load(std::memory_order_acquire) == kWaiting && left.count() > 0;
         left = deadline - Clock::now()) {
      futex_wait(state, kWaiting, left);
    }
  }
  const MutexLock lock(mutex_);
  const std::uint32_t now = state.load(std::memory_order_relaxed);
  if (now == kWaiting || now == kFailed) {
    state.store(kAbandoned, std::memory_order_relaxed);
    return now == kFailed ? std::optional(Code::kResponseFailure) : std::nullopt;
  }
  state.store(kFree, std::memory_order_relaxed);
  returned_locked();
  return static_cast<Code>(now - kAnswered);
}

PageRequestGroups::Answer PageRequestGroups::answer(const iommu::PageResponse& response) {
  if (response.group >= kCount) return {};
  std::atomic<std::uint32_t>& state = states_[response.group];
  const MutexLock lock(mutex_);
  const Group& group = groups_[response.group];
  const std::uint32_t now = state.load(std::memory_order_relaxed);
  // A response carries its PASID only if the device context says so.
  if (response.pasid && response.pasid != group.pasid) return {};
  if (now == kFree || now >= kAnswered) return {};
  outstanding_ -= group.pages;
  returned_locked();
  if (now == kAbandoned) {
    state.store(kFree, std::memory_order_relaxed);
    return {true, std::nullopt};
  }
  const Code code = now == kFailed ? Code::kResponseFailure : response.code;
  state.store(kAnswered + static_cast<std::uint32_t>(code), std::memory_order_release);
  if (group.sleeps) futex_wake(state);
  return {true, group.page};
}

void PageRequestGroups::free_locked(std::size_t group) {
  states_[group].store(kFree, std::memory_order_relaxed);
  outstanding_ -= groups_[group].pages;
  returned_locked();
}

void PageRequestGroups::give_back(std::uint16_t group) {
  const MutexLock lock(mutex_);
  free_locked(group);
}

void PageRequestGroups::forget_abandoned() {
  const MutexLock lock(mutex_);
  for (std::size_t group = 0; group < kCount; ++group) {
    std::atomic<std::uint32_t>& state = states_[group];
    if (state.load(std::memory_order_relaxed) == kAbandoned) free_locked(group);
    if (state.load(std::memory_order_relaxed) != kFailed) continue;
    // Its waiter has not looked yet, and frees it then.
    outstanding_ -= groups_[group].pages;
    returned_locked();
    state.store(kAnswered + static_cast<std::uint32_t>(Code::kResponseFailure),
                std::memory_order_release);
  }
}

void PageRequestGroups::fail_all() {
  const MutexLock lock(mutex_);
  ++ends_;
  returned_locked();
  for (std::atomic<std::uint32_t>& state : states_) {
    if (state.load(std::memory_order_relaxed) != kWaiting) continue;
    state.store(kFailed, std::memory_order_release);
    futex_wake(state);
  }
}

}  // namespace tandem::pcie::detail
