// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>

#include "tandem/base/mutex.hpp"
#include "tandem/pcie/detail/atc.hpp"
#include "tandem/pcie/detail/page_request.hpp"
#include "tandem/pcie/detail/slots.hpp"
#include "tandem/pcie/detail/thread_state.hpp"
#include "tandem/pcie/pcie.hpp"

namespace tandem::pcie::detail {

/// What an Endpoint is made of.
struct EndpointState {
  EndpointState(DeviceId device, Endpoint::Options with)
      : id(device), options(with), groups(with.page_request_capacity) {}

  const DeviceId id;
  const Endpoint::Options options;
  Atc atc;
  Slots slots;
  PageRequestGroups groups;
  ShardedStats stats;
  std::atomic<bool> tapped{false};  // written under tap_mutex, read before every message
  Mutex tap_mutex;
  std::shared_ptr<const Endpoint::Tap> tap TANDEM_GUARDED_BY(tap_mutex);
  std::unique_ptr<iommu::Port> port;  // first to go: afterwards nobody calls us

  /// Set by a Response Failure: page requests stop, and responses are ignored.
  std::atomic<bool> page_requests_failed{false};

  /// Whether a message for the space of `pasid` may be sent.
  bool may_carry(std::optional<Pasid> pasid) const { return !pasid || options.pasid; }
  bool requests_pages() const {
    return options.pri && !page_requests_failed.load(std::memory_order_relaxed);
  }

  const memory::Memory& memory() const { return port->memory(); }

  /// Shows what `make` returns to the tap, if there is one.
  template <class Make>
  void show(Make make) {
    if (tapped.load(std::memory_order_relaxed)) [[unlikely]] {
      show_message(make());
    }
  }
  void show_message(const Message& message);
  Message message_of(const iommu::AtsInvalidation& request, Message::Kind kind) const;

  /// Frees an in-flight slot, and completes the invalidations that waited for it last.
  void release(std::uint32_t slot);
};

DmaResult transfer(EndpointState& state, std::optional<Pasid> pasid, Iova at,
                   std::span<std::byte> to);
DmaResult transfer(EndpointState& state, std::optional<Pasid> pasid, Iova at,
                   std::span<const std::byte> from);

bool copy_cached(EndpointState& state, std::optional<Pasid> pasid, Iova from, Iova to,
                 std::size_t length);

/// Sends a group of page requests for `pages` pages from `first` on, and waits for its response.
/// Not with a Window.
Result<void, DmaFault::Reason> request_group(EndpointState& state, std::optional<Pasid> pasid,
                                             Iova first, std::uint32_t pages, Access access);
Result<void, DmaFault> request_pages(EndpointState& state, std::optional<Pasid> pasid, Iova at,
                                     std::size_t length, Access access);
bool send_stop_marker(EndpointState& state, std::optional<Pasid> pasid);

struct Mapped {
  std::uint32_t slot = 0;
  std::span<std::byte> bytes;
};
Result<Mapped, DmaFault> map(EndpointState& state, std::optional<Pasid> pasid, Iova at,
                             std::size_t length, Access access);

}  // namespace tandem::pcie::detail
