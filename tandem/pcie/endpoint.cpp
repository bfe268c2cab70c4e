// SPDX-License-Identifier: Apache-2.0
#include <cerrno>

#include "tandem/base/check.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/pcie/detail/endpoint_state.hpp"
#include "tandem/pcie/pcie.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::pcie {

using config::PageRequestStatus;
using detail::EndpointState;
using detail::SpaceKey;

namespace detail {

void EndpointState::show_message(const Message& message) {
  std::shared_ptr<const Endpoint::Tap> current;
  {
    const MutexLock lock(tap_mutex);
    current = tap;
  }
  if (current) (*current)(message);
}

void EndpointState::complete_invalidations() {
  while (const auto request = slots.take_completed()) {
    show([&] { return message_of(*request, Message::Kind::kInvalidationCompletion); });
    port->complete_invalidation(request->itag, 1, request->sequence);
  }
  slots.completed();
}

Message EndpointState::message_of(const iommu::AtsInvalidation& request, Message::Kind kind) const {
  Message message;
  message.kind = kind;
  message.device = id;
  message.pasid = request.pasid;
  message.address = request.address;
  message.size_bytes = request.size_bytes;
  message.tag = request.itag;
  return message;
}

}  // namespace detail

Window::~Window() {
  if (endpoint_ == nullptr) return;
  --detail::thread_state.windows;
  endpoint_->state_->release(slot_);
}

DmaResult AddressSpace::read(Iova at, std::span<std::byte> to) const {
  return detail::read(*endpoint_->state_, requester_, at, to);
}

DmaResult AddressSpace::fetch(Iova at, std::span<std::byte> to) const {
  return detail::fetch(*endpoint_->state_, requester_, at, to);
}

DmaResult AddressSpace::write(Iova at, std::span<const std::byte> from) const {
  return detail::write(*endpoint_->state_, requester_, at, from);
}

bool AddressSpace::copy_cached(Iova from, Iova to, std::size_t length) const {
  return detail::copy_cached(*endpoint_->state_, requester_, from, to, length);
}

Result<Window, DmaFault> AddressSpace::map(Iova at, std::size_t length, Access access) const {
  const auto mapped = detail::map(*endpoint_->state_, requester_, at, length, access);
  if (!mapped) return Unexpected{mapped.error()};
  Window window;
  window.endpoint_ = endpoint_;
  window.slot_ = mapped->slot;
  window.bytes_ = mapped->bytes;
  return window;
}

Result<void, DmaFault> AddressSpace::request_pages(Iova at, std::size_t length,
                                                   Access access) const {
  return detail::request_pages(*endpoint_->state_, requester_, at, length, access);
}

bool AddressSpace::send_stop_marker() const {
  return detail::send_stop_marker(*endpoint_->state_, requester_.pasid);
}

Result<std::unique_ptr<Endpoint>> Endpoint::create(iommu::Iommu& iommu, DeviceId id,
                                                   Options options) {
  if ((options.pri && !options.ats) || options.pasid_bits > iommu::kPasidBits ||
      !detail::ConfigSpace::has_room_for_msis(options.msi_vectors) ||
      !detail::Bars::fit(options.bars, options.bar_memory)) {
    return errno_error(EINVAL);
  }
  std::unique_ptr<Endpoint> endpoint(
      new Endpoint(std::make_unique<EndpointState>(id, std::move(options))));
  auto port = iommu.attach(id, *endpoint);
  if (!port) return Unexpected{port.error()};
  endpoint->state_->port = std::move(*port);
  return endpoint;
}

Endpoint::Endpoint(std::unique_ptr<EndpointState> state) : state_(std::move(state)) {
  const MutexLock change(state_->change_mutex);
  state_->apply_locked();
}

Endpoint::~Endpoint() {
  TANDEM_CHECK(state_->slots.idle());
  state_->port.reset();
}

DeviceId Endpoint::id() const { return state_->id; }

EndpointStats Endpoint::stats() const { return state_->stats.sum(); }

EndpointStats Endpoint::thread_stats() noexcept { return detail::thread_state.stats; }

void Endpoint::set_tap(Tap tap) {
  const MutexLock lock(state_->tap_mutex);
  state_->tap = tap ? std::make_shared<const Tap>(std::move(tap)) : nullptr;
  state_->tapped.store(state_->tap != nullptr, std::memory_order_relaxed);
}

/// Order: entries, then sections that may have found them, then slots those sections validated. The
/// request is complete when the last of these slots is free, which nobody waits for here.
iommu::InvalidationReply Endpoint::invalidate(const iommu::AtsInvalidation& request) {
  using iommu::InvalidationReply;
  if (planted_fault("pcie-skip-invalidation")) return InvalidationReply::kCompleted;
  EndpointState& state = *state_;
  state.show([&] { return state.message_of(request, Message::Kind::kInvalidationRequest); });
  state.stats.add({.invalidations = 1});

  std::optional<SpaceKey> space;
  if (request.pasid && request.global) {
    state.atc.invalidate_all_pasids();
  } else {
    space = SpaceKey(request.pasid);
    // Nothing smaller than the smallest translation unit is asked for.
    const unsigned unit = state.log2_smallest_translation_unit.load(std::memory_order_relaxed);
    const std::uint64_t unit_bytes = std::uint64_t{1} << unit;
    if (request.size_bytes != 0 && request.size_bytes < unit_bytes) {
      state.atc.invalidate(*space, request.address.value & ~(unit_bytes - 1), unit_bytes);
    } else {
      state.atc.invalidate(*space, request.address.value, request.size_bytes);
    }
  }
  rcu::rcu_synchronize();
  if (!planted_fault("pcie-skip-slot-wait") && state.slots.wait_for(request, space)) {
    return InvalidationReply::kPending;
  }
  state.show([&] { return state.message_of(request, Message::Kind::kInvalidationCompletion); });
  return InvalidationReply::kCompleted;
}

void Endpoint::page_response(const iommu::PageResponse& response) {
  if (state_->page_requests_failed.load(std::memory_order_relaxed)) {
    (void)state_->groups.answer(response);  // its requests are outstanding no more
    return;
  }
  const auto answer = state_->groups.answer(response);
  if (!answer.expected)
    state_->note_page_request_status(PageRequestStatus::UnexpectedGroupIndex::kMask);
  if (answer.page) {
    state_->show([&] {
      Message message;
      message.kind = Message::Kind::kPageResponse;
      message.device = id();
      message.pasid = response.pasid;
      message.address = *answer.page;
      message.tag = response.group;
      message.status = static_cast<std::uint8_t>(response.code);
      return message;
    });
  }
  if (answer.expected && response.code == iommu::PageResponse::Code::kResponseFailure) {
    state_->page_requests_failed.store(true, std::memory_order_relaxed);
    state_->groups.fail_all();
    state_->note_page_request_status(PageRequestStatus::ResponseFailure::kMask);
  }
}

}  // namespace tandem::pcie
