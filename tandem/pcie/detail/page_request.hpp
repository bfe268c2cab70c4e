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

/// The page-request groups (PRGI, 9 bits) of an endpoint that await their response, and its
/// credits: how many page requests may be outstanding, in all groups together.
///
/// A group goes free → waiting → answered → free. One whose response did not come in time, or whose
/// wait was ended, stays abandoned until the response arrives, so that it cannot answer a later
/// request; its requests are outstanding as long.
///
/// Thread safety: all calls, from any thread; wait() from the thread that claimed the group.
/// Spec: PCIe, "Page Request Services", "Page Request Extended Capability Structure".
class PageRequestGroups {
 public:
  static constexpr std::size_t kCount = 512;

  /// `allocation`: the credits.
  explicit PageRequestGroups(std::uint32_t allocation = kCount) : allocation_(allocation) {}

  /// Outstanding requests above a smaller allocation stay outstanding.
  void set_allocation(std::uint32_t allocation);
  std::uint32_t allocation() const;
  std::uint32_t outstanding() const;

  /// Takes a group and credits for `pages` requests of `pasid` from `page` on. Waits for them while
  /// others have them, at most for `timeout`. Returns: none when they did not come, or never can.
  std::optional<std::uint16_t> claim(std::optional<iommu::Pasid> pasid, iommu::Iova page,
                                     std::uint32_t pages = 1,
                                     std::chrono::nanoseconds timeout = {});
  /// Frees a group of which no request was sent.
  void give_back(std::uint16_t group);
  /// Waits for the group's response and frees the group; none after `timeout`.
  std::optional<iommu::PageResponse::Code> wait(std::uint16_t group,
                                                std::chrono::nanoseconds timeout);

  struct Answer {
    bool expected = false;            ///< the group was outstanding
    std::optional<iommu::Iova> page;  ///< that was asked for, if somebody still waits
  };
  /// Takes a response. One to no outstanding group, or with another PASID than it, is ignored.
  Answer answer(const iommu::PageResponse& response);
  /// Ends the waits of all groups, and for one: the answers are not going to be listened to.
  void fail_all();
  /// Frees what is abandoned: no response comes any more.
  void forget_abandoned();

 private:
  static constexpr std::uint32_t kFree = 0;
  static constexpr std::uint32_t kWaiting = 1;
  static constexpr std::uint32_t kAbandoned = 2;
  static constexpr std::uint32_t kFailed = 3;  // abandoned, which the waiter does not know yet
  static constexpr std::uint32_t kAnswered = 0x100;  // | response code

  struct Group {
    std::optional<iommu::Pasid> pasid;
    iommu::Iova page;
    std::uint32_t pages = 0;
    bool sleeps = false;  // its waiter, perhaps: an answer on the waiter's own thread wakes nobody
  };

  std::optional<std::uint16_t> try_claim_locked(std::optional<iommu::Pasid> pasid, iommu::Iova page,
                                                std::uint32_t pages) TANDEM_REQUIRES(mutex_);
  void note_sleep(std::uint16_t group);
  void returned_locked() TANDEM_REQUIRES(mutex_);
  void free_locked(std::size_t group) TANDEM_REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::array<Group, kCount> groups_ TANDEM_GUARDED_BY(mutex_);
  std::size_t next_ TANDEM_GUARDED_BY(mutex_) = 0;
  std::uint32_t allocation_ TANDEM_GUARDED_BY(mutex_);
  std::uint32_t outstanding_ TANDEM_GUARDED_BY(mutex_) = 0;
  unsigned claimers_ TANDEM_GUARDED_BY(mutex_) = 0;          // that wait
  std::uint64_t ends_ TANDEM_GUARDED_BY(mutex_) = 0;         // calls of fail_all()
  std::atomic<std::uint32_t> returns_{0};                    // written under mutex_, waited on
  std::array<std::atomic<std::uint32_t>, kCount> states_{};  // written under mutex_, waited on
};

}  // namespace tandem::pcie::detail
