// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "tandem/base/mutex.hpp"
#include "tandem/iommu/spec.hpp"

namespace tandem::iommu::detail {

/// The registers of the translation-request interface.
///
/// Thread safety: any thread. While a request is at work its registers cannot be written.
/// Spec: §6.24 "Translation-request IOVA (tr_req_iova)", §6.25 "Translation-request control
///       (tr_req_ctl)", §6.26 "Translation-response (tr_response)".
class DebugTranslation {
 public:
  struct Request {
    std::uint64_t iova = 0;
    std::uint64_t control = 0;
  };

  std::uint64_t iova() const;
  std::uint64_t control() const;
  std::uint64_t response() const;
  /// `mask`: what is written.
  void write_iova(std::uint64_t value, std::uint64_t mask);
  /// Returns: the request that this starts, which respond() ends.
  std::optional<Request> write_control(std::uint64_t value, std::uint64_t mask);
  void respond(std::uint64_t response);
  void reset();

 private:
  mutable Mutex mutex_;
  Request request_ TANDEM_GUARDED_BY(mutex_);
  std::uint64_t response_ TANDEM_GUARDED_BY(mutex_) = 0;
};

}  // namespace tandem::iommu::detail
