// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/page_request.hpp"

#include "tandem/base/futex.hpp"

namespace tandem::pcie::detail {

using Code = iommu::PageResponse::Code;

std::optional<std::uint16_t> PageRequestGroups::claim(std::optional<iommu::Pasid> pasid,
                                                      iommu::Iova page) {
  const MutexLock lock(mutex_);
  for (std::size_t i = 0; i < kCount; ++i) {
    const std::size_t group = next_++ % kCount;
    if (states_[group].load(std::memory_order_relaxed) != kFree) continue;
    groups_[group] = {pasid, page};
    states_[group].store(kWaiting, std::memory_order_relaxed);
    return static_cast<std::uint16_t>(group);
  }
  return std::nullopt;
}

std::optional<Code> PageRequestGroups::wait(std::uint16_t group, std::chrono::nanoseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  std::atomic<std::uint32_t>& state = states_[group];
  for (auto left = timeout; state.load(std::memory_order_acquire) == kWaiting && left.count() > 0;
       left = deadline - std::chrono::steady_clock::now()) {
    futex_wait(state, kWaiting, left);
  }
  const MutexLock lock(mutex_);
  const std::uint32_t now = state.load(std::memory_order_relaxed);
  state.store(now == kWaiting ? kAbandoned : kFree, std::memory_order_relaxed);
  if (now == kWaiting) return std::nullopt;
  return static_cast<Code>(now - kAnswered);
}

std::optional<iommu::Iova> PageRequestGroups::answer(const iommu::PageResponse& response) {
  if (response.group >= kCount) return std::nullopt;
  std::atomic<std::uint32_t>& state = states_[response.group];
  const MutexLock lock(mutex_);
  const Group& group = groups_[response.group];
  // A response carries its PASID only if the device context says so.
  if (response.pasid && response.pasid != group.pasid) return std::nullopt;
  const std::uint32_t now = state.load(std::memory_order_relaxed);
  if (now == kAbandoned) state.store(kFree, std::memory_order_relaxed);
  if (now != kWaiting) return std::nullopt;
  state.store(kAnswered + static_cast<std::uint32_t>(response.code), std::memory_order_release);
  futex_wake(state);
  return group.page;
}

}  // namespace tandem::pcie::detail
