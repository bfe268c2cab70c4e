// SPDX-License-Identifier: Apache-2.0
#include <cerrno>

#include "tandem/base/check.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/pcie/detail/endpoint_state.hpp"
#include "tandem/pcie/pcie.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::pcie {

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

}  // namespace detail

Window::~Window() {
  if (endpoint_ == nullptr) return;
  endpoint_->state_->slots.release(slot_);
  --detail::thread_state.windows;
}

DmaResult AddressSpace::read(Iova at, std::span<std::byte> to) const {
  return detail::transfer(*endpoint_->state_, pasid_, at, to);
}

DmaResult AddressSpace::write(Iova at, std::span<const std::byte> from) const {
  return detail::transfer(*endpoint_->state_, pasid_, at, from);
}

bool AddressSpace::copy_cached(Iova from, Iova to, std::size_t length) const {
  return detail::copy_cached(*endpoint_->state_, pasid_, from, to, length);
}

Result<Window, DmaFault> AddressSpace::map(Iova at, std::size_t length, Access access) const {
  const auto mapped = detail::map(*endpoint_->state_, pasid_, at, length, access);
  if (!mapped) return Unexpected{mapped.error()};
  Window window;
  window.endpoint_ = endpoint_;
  window.slot_ = mapped->slot;
  window.bytes_ = mapped->bytes;
  return window;
}

Result<std::unique_ptr<Endpoint>> Endpoint::create(iommu::Iommu& iommu, DeviceId id,
                                                   Options options) {
  if (options.pri && !options.ats) return errno_error(EINVAL);
  std::unique_ptr<Endpoint> endpoint(new Endpoint(std::make_unique<EndpointState>(id, options)));
  auto port = iommu.attach(id, *endpoint);
  if (!port) return Unexpected{port.error()};
  endpoint->state_->port = std::move(*port);
  return endpoint;
}

Endpoint::Endpoint(std::unique_ptr<EndpointState> state) : state_(std::move(state)) {}

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

/// Order: entries, then sections that may have found them, then slots those sections validated.
bool Endpoint::ats_invalidate(const iommu::AtsInvalidation& request) {
  if (planted_fault("pcie-skip-invalidation")) return true;
  EndpointState& state = *state_;
  Message message;
  message.kind = Message::Kind::kInvalidationRequest;
  message.device = id();
  message.pasid = request.pasid;
  message.address = request.address;
  message.size_bytes = request.size_bytes;
  message.tag = request.itag;
  state.show([&] { return message; });
  state.stats.add({.invalidations = 1});

  std::optional<SpaceKey> space;
  if (request.pasid && request.global) {
    state.atc.invalidate_all_pasids();
  } else {
    space = SpaceKey(request.pasid);
    state.atc.invalidate(*space, request.address.value, request.size_bytes);
  }
  rcu::rcu_synchronize();
  if (!planted_fault("pcie-skip-slot-wait") &&
      !state.slots.wait(space, state.options.invalidation_timeout)) {
    return false;
  }
  message.kind = Message::Kind::kInvalidationCompletion;
  state.show([&] { return message; });
  return true;
}

void Endpoint::page_response(const iommu::PageResponse& response) {
  const auto page = state_->groups.answer(response);
  if (!page) return;
  state_->show([&] {
    Message message;
    message.kind = Message::Kind::kPageResponse;
    message.device = id();
    message.pasid = response.pasid;
    message.address = *page;
    message.tag = response.group;
    message.status = static_cast<std::uint8_t>(response.code);
    return message;
  });
}

}  // namespace tandem::pcie
