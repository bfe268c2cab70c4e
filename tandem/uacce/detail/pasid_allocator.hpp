// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <utility>

#include "tandem/base/mutex.hpp"
#include "tandem/iommu/iommu.hpp"

namespace tandem::uacce::detail {

/// Hands out PASIDs; the one freed longest ago first, and only once kResting are free, so that one
/// is not used again at once. PASID 0 is left alone: a dump without a PASID often shows as 0.
///
/// Thread safety: any thread.
class PasidAllocator {
 public:
  static constexpr std::size_t kResting = 64;

  std::optional<iommu::Pasid> allocate() {
    const MutexLock lock(mutex_);
    if (early_) return std::exchange(early_, std::nullopt);
    const bool fresh_left = fresh_ < std::uint32_t{1} << iommu::kPasidBits;
    if (!free_.empty() && (free_.size() >= kResting || !fresh_left)) return take_locked();
    if (fresh_left) return iommu::Pasid{fresh_++};
    return std::nullopt;
  }

  /// Takes back a PASID: its invalidation and fence are complete.
  void free(iommu::Pasid pasid) {
    const MutexLock lock(mutex_);
    free_.push_back(pasid);
  }

  /// What the planted fault "uacce-early-pasid-reuse" does instead.
  void free_for_reuse_at_once(iommu::Pasid pasid) {
    const MutexLock lock(mutex_);
    early_ = pasid;
  }

 private:
  iommu::Pasid take_locked() TANDEM_REQUIRES(mutex_) {
    const iommu::Pasid pasid = free_.front();
    free_.pop_front();
    return pasid;
  }

  Mutex mutex_;
  std::uint32_t fresh_ TANDEM_GUARDED_BY(mutex_) = 1;
  std::optional<iommu::Pasid> early_ TANDEM_GUARDED_BY(mutex_);
  std::deque<iommu::Pasid> free_ TANDEM_GUARDED_BY(mutex_);
};

}  // namespace tandem::uacce::detail
