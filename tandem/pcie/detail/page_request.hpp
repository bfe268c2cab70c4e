// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "tandem/base/mutex.hpp"
#include "tandem/iommu/iommu.hpp"

namespace tandem::pcie::detail {

/// The page-request groups (PRGI, 9 bits) of an endpoint that await their response.
///
/// A group goes free → waiting → answered → free. One whose response did not come in time stays
/// abandoned until the response arrives, so that it cannot answer a later request.
///
/// Thread safety: all calls, from any thread; wait() from the thread that claimed the group.
class PageRequestGroups {
 public:
  static constexpr std::size_t kCount = 512;

  /// Takes a free group for a request of `pasid` at `page`; none when all are in use.
  std::optional<std::uint16_t> claim(std::optional<iommu::Pasid> pasid, iommu::Iova page);
  /// Waits for the group's response and frees the group; none after `timeout`.
  std::optional<iommu::PageResponse::Code> wait(std::uint16_t group,
                                                std::chrono::nanoseconds timeout);
  /// Takes a response. A response to no waiting request, or with another PASID than it, is ignored.
  /// Returns: the page that was asked for, unless ignored.
  std::optional<iommu::Iova> answer(const iommu::PageResponse& response);

 private:
  static constexpr std::uint32_t kFree = 0;
  static constexpr std::uint32_t kWaiting = 1;
  static constexpr std::uint32_t kAbandoned = 2;
  static constexpr std::uint32_t kAnswered = 0x100;  // | response code

  struct Group {
    std::optional<iommu::Pasid> pasid;
    iommu::Iova page;
  };

  Mutex mutex_;
  std::array<Group, kCount> groups_ TANDEM_GUARDED_BY(mutex_);
  std::size_t next_ TANDEM_GUARDED_BY(mutex_) = 0;
  std::array<std::atomic<std::uint32_t>, kCount> states_{};  // written under mutex_, waited on
};

}  // namespace tandem::pcie::detail
