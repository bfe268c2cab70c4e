// SPDX-License-Identifier: Apache-2.0
/// Page Request messages: who sends them, and what their responses mean.
#include <algorithm>

#include "tandem/base/check.hpp"
#include "tandem/pcie/detail/endpoint_state.hpp"

namespace tandem::pcie::detail {
namespace {

using Code = iommu::PageResponse::Code;
using Reason = DmaFault::Reason;

constexpr std::uint64_t kPageBytes = 4096;
/// A group of more pages than this would keep them from other requesters too long.
constexpr std::uint32_t kMaxGroupPages = 32;

void send(EndpointState& state, const iommu::PageRequest& request) {
  state.show([&] {
    Message message;
    message.kind = Message::Kind::kPageRequest;
    message.device = state.id;
    message.set_requester({request.pasid, request.privileged});
    message.address = request.address;
    message.size_bytes = kPageBytes;
    message.readable = request.read;
    message.writable = request.write;
    message.executable = request.execute;
    message.last = request.last;
    message.tag = request.group;
    return message;
  });
  state.port->page_request(request);
}

}  // namespace

Result<void, DmaFault::Reason> request_group(EndpointState& state, Controls began,
                                             const Requester& requester, Iova first,
                                             std::uint32_t pages, Access access) {
  if (!state.requests_pages()) return Unexpected{Reason::kNoService};
  // The service may invalidate our translations from this very thread.
  TANDEM_CHECK(thread_state.windows == 0);
  const auto group =
      state.groups.claim(requester.pasid, first, pages, state.options.page_request_timeout);
  if (!group) return Unexpected{state.lasts(began) ? Reason::kNoService : Reason::kDisabled};
  // After the claim, which may have waited: the end of a life fails what is claimed.
  if (!state.lasts(began) || !state.requests_pages()) {
    state.groups.give_back(*group);
    return Unexpected{state.lasts(began) ? Reason::kNoService : Reason::kDisabled};
  }
  state.stats.add({.page_requests = pages});
  thread_state.stats.page_requests += pages;

  iommu::PageRequest request;
  request.pasid = requester.pasid;
  request.privileged = requester.privileged;
  request.execute = access == Access::kExecute;
  request.read = access != Access::kWrite;
  request.write = access == Access::kWrite;
  request.group = *group;
  for (std::uint32_t page = 0; page < pages; ++page) {
    request.address = first.plus(page * kPageBytes);
    request.last = page + 1 == pages;
    send(state, request);
    if (state.options.page_request_sent) state.options.page_request_sent(request);
  }
  const auto code = state.groups.wait(*group, state.options.page_request_timeout);
  if (!state.lasts(began)) return Unexpected{Reason::kDisabled};
  if (!code) return Unexpected{Reason::kNoService};
  switch (*code) {
    case Code::kSuccess:
      return {};
    case Code::kInvalidRequest:
      return Unexpected{Reason::kNotPermitted};
    case Code::kResponseFailure:
      break;
  }
  return Unexpected{Reason::kNoService};
}

Result<void, DmaFault> request_pages(EndpointState& state, const Requester& requester, Iova at,
                                     std::size_t length, Access access) {
  if (length == 0) return {};
  if (at.value > ~std::uint64_t{0} - (length - 1)) {
    return Unexpected{DmaFault{Reason::kWraps, at}};
  }
  const Controls began = state.now();
  if (!state.permits(began, requester, access)) {
    return Unexpected{DmaFault{Reason::kDisabled, at}};
  }
  if (thread_state.windows != 0) return Unexpected{DmaFault{Reason::kNotMappable, at}};
  Iova next{at.value & ~(kPageBytes - 1)};
  std::uint64_t left = ((at.value + (length - 1)) / kPageBytes) - next.value / kPageBytes + 1;
  while (left != 0) {
    const std::uint32_t most = std::min(kMaxGroupPages, state.groups.allocation());
    const auto pages =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(left, std::max(most, 1U)));
    const auto served = request_group(state, began, requester, next, pages, access);
    if (!served) return Unexpected{DmaFault{served.error(), std::max(next, at)}};
    next = next.plus(pages * kPageBytes);
    left -= pages;
  }
  return {};
}

bool send_stop_marker(EndpointState& state, std::optional<Pasid> pasid) {
  if (!pasid || !state.permits(state.now(), {pasid}, Access::kRead) || !state.requests_pages())
    return false;
  iommu::PageRequest marker;
  marker.pasid = pasid;
  send(state, marker);
  return true;
}

}  // namespace tandem::pcie::detail
