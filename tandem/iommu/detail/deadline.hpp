// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <utility>

#include "tandem/base/mutex.hpp"
#include "tandem/iommu/iommu.hpp"

namespace tandem::iommu::detail {

/// Whom to tell by when Iommu::advance() is to be called.
///
/// Thread safety: any thread; the mutex is a leaf, and not held while the handler runs.
class Deadline {
 public:
  using TimePoint = Iommu::TimePoint;

  void connect(Iommu::DeadlineHandler handler) {
    auto shared = std::make_shared<const Iommu::DeadlineHandler>(std::move(handler));
    const MutexLock lock(mutex_);
    handler_ = std::move(shared);
  }
  void tell(TimePoint when) const {
    std::shared_ptr<const Iommu::DeadlineHandler> handler;
    {
      const MutexLock lock(mutex_);
      handler = handler_;
    }
    if (handler && *handler) (*handler)(when);
  }

 private:
  mutable Mutex mutex_;
  std::shared_ptr<const Iommu::DeadlineHandler> handler_ TANDEM_GUARDED_BY(mutex_);
};

}  // namespace tandem::iommu::detail
