// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/state.hpp"
#include "tandem/trace/trace.hpp"

namespace tandem::iommu {
namespace {

using Code = PageResponse::Code;
using Status = detail::RecordQueue::Status;

PageRequestRecord make_record(DeviceId device, const PageRequest& request) {
  using Payload = PageRequestRecord::Payload;
  PageRequestRecord record;
  record.head = PageRequestRecord::Did::make(device.value);
  if (request.pasid) {
    record.head |= PageRequestRecord::Pv::make(1) |
                   PageRequestRecord::Pid::make(request.pasid->value) |
                   PageRequestRecord::Priv::make(request.privileged) |
                   PageRequestRecord::Exec::make(request.execute);
  }
  record.payload = Payload::R::make(request.read) | Payload::W::make(request.write) |
                   Payload::L::make(request.last) | Payload::Prgi::make(request.group) |
                   (request.address.value & Payload::Address::kMask);
  return record;
}

/// L set, R and W clear.
bool is_stop_marker(const PageRequest& request) {
  return request.last && !request.read && !request.write;
}

/// The response code for a device context that could not be located.
Code code_for(Cause cause) {
  return cause == Cause::kTtypeBlocked ? Code::kInvalidRequest : Code::kResponseFailure;
}

}  // namespace

/// Spec: §3.7 "PCIe ATS Page Request handling".
void Iommu::State::page_request(DeviceId device, DeviceCallbacks& callbacks,
                                const PageRequest& request) {
  page_requests_seen.fetch_add(1, std::memory_order_relaxed);
  TANDEM_TRACE(page_request, request.pasid ? request.pasid->value : 0, request.address.value,
               request.group, request.write);

  bool response_takes_pasid = false;  // PRPR; 0 when no device context is found
  const auto answer = [&](Code code) {
    if (!request.last || is_stop_marker(request)) return;  // needs none: silently discarded
    PageResponse response;
    response.code = code;
    response.group = request.group;
    if (code == Code::kResponseFailure || response_takes_pasid) response.pasid = request.pasid;
    TANDEM_TRACE(page_response, response.pasid ? response.pasid->value : 0, response.code,
                 response.group);
    callbacks.page_response(response);
  };
  const auto refuse = [&](Cause cause, bool hides) {
    report({cause, hides, 0}, TransactionType::kMessageRequest, device,
           Requester{request.pasid, request.privileged}, kPageRequestMessageCode);
    answer(code_for(cause));
  };

  detail::WalkCounts counts{.ids = {.device = device, .process = request.pasid}};
  const auto context = device_context(device, &counts.loads);
  Leftover left;
  count_walks(counts, left);
  finish(left, device, {});
  if (!context) return refuse(context.error(), false);
  response_takes_pasid = context->response_needs_pasid();
  if (!context->ats_enabled() || !context->page_requests_enabled()) {
    return refuse(Cause::kTtypeBlocked, context->hides_translation_faults());
  }

  const PageRequestRecord record = make_record(device, request);
  const std::uint64_t words[] = {record.head, record.payload};
  const auto pushed = page_requests.push(words);
  signal_if(pushed.raised, Interrupt::kPageRequestQueue);
  switch (pushed.status) {
    case Status::kQueued:
      break;
    case Status::kOff:
    case Status::kMemoryFault:
      answer(Code::kResponseFailure);
      break;
    case Status::kOverflow:
      answer(Code::kSuccess);
      break;
  }
}

}  // namespace tandem::iommu
