// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "tandem/pcie/detail/endpoint_state.hpp"

namespace tandem::pcie::detail {

/// A translation just received, and how to tell whether it still holds.
struct Fresh {
  CachedTranslation translation;
  Atc::Ticket ticket;
  bool untranslated_only = false;  ///< not to be used: accesses of the page are untranslated
};

/// What a cached translation has to allow.
constexpr unsigned needed_permissions(const Requester& requester, Access access) {
  constexpr unsigned kNeeds[] = {kReadable, kWritable, kExecutable};
  return kNeeds[static_cast<std::size_t>(access)] |
         static_cast<unsigned>(requester.privileged) * kPrivileged;
}

/// Asks the IOMMU about one access of one space, by ATS and PRI: one object for one read(), write()
/// or map(). Makes no call inside a reader section.
class Translator {
 public:
  using Reason = DmaFault::Reason;

  Translator(EndpointState& state, const Requester& requester, Access access)
      : state_(state),
        requester_(requester),
        space_(requester.pasid),
        access_(access),
        began_(state.now()) {}

  /// Whether the function may send these requests for this space at all.
  bool permitted() const { return state_.permits(began_, requester_, access_); }
  bool uses_ats() const { return began_.allows(Controls::kAts); }
  bool alive() const { return state_.lasts(began_); }

  /// Requests a translation of `at` that allows the access, with page requests as needed, and keeps
  /// it in the ATC.
  ///
  /// Between two calls of progressed() the number of translation and page requests is bounded: a
  /// process that keeps unmapping stops its own access, not the device.
  Result<Fresh, Reason> translate(Iova at);
  /// Asks the operating system to make the page of `at` accessible.
  Result<void, Reason> request_page(Iova at);
  void progressed() {
    requests_ = 0;
    page_requests_ = 0;
  }

  SpaceKey space() const { return space_; }
  unsigned permissions() const { return needed_permissions(requester_, access_); }

 private:
  static constexpr unsigned kMaxPageRequests = 8;
  /// Larger: a translation may also be lost to invalidations of a space with the same hash.
  static constexpr unsigned kMaxRequests = 256;

  iommu::AtsCompletion request(Iova page);

  EndpointState& state_;
  Requester requester_;
  SpaceKey space_;
  Access access_;
  Controls began_;  // of the operation
  unsigned requests_ = 0;
  unsigned page_requests_ = 0;
};

}  // namespace tandem::pcie::detail
