// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/command_queue.hpp"
#include "tandem/trace/trace.hpp"

namespace tandem::iommu::detail {
namespace {

/// The range that an ATS.INVAL payload names. Spec: §4.1.4 "IOMMU PCIe ATS commands"; PCIe.
void decode_range(std::uint64_t payload, AtsInvalidation& request) {
  using Payload = Ats::InvalPayload;
  const std::uint64_t address = payload & Payload::Address::kMask;
  if (Payload::S::get(payload) == 0) {
    request.address = Iova{address};
    request.size_bytes = kPageBytes;
    return;
  }
  const unsigned log2_size = kPageShift + napot_log2_pages(Payload::Address::get(payload));
  if (log2_size >= 64) {
    request.address = Iova{0};
    request.size_bytes = 0;
    return;
  }
  request.size_bytes = std::uint64_t{1} << log2_size;
  request.address = Iova{address & ~(request.size_bytes - 1)};
}

std::optional<Pasid> pasid_operand(std::uint64_t word) {
  if (Ats::Pv::get(word) == 0) return std::nullopt;
  return Pasid{static_cast<std::uint32_t>(Ats::Pid::get(word))};
}

DeviceId destination(std::uint64_t word) {
  const std::uint64_t segment = Ats::Dsv::get(word) != 0 ? Ats::Dseg::get(word) : 0;
  return {static_cast<std::uint32_t>(segment << Ats::Rid::kWidth | Ats::Rid::get(word))};
}

/// PCIe: a device takes the codes without a meaning for Response Failure.
PageResponse::Code response_code(std::uint64_t code) {
  switch (code) {
    case 0:
      return PageResponse::Code::kSuccess;
    case 1:
      return PageResponse::Code::kInvalidRequest;
    default:
      return PageResponse::Code::kResponseFailure;
  }
}

}  // namespace

/// Spec: §4.1.4 "IOMMU PCIe ATS commands".
CommandQueue::Step CommandQueue::ats_locked(const Command& command) {
  if (!config_.has<Capabilities::Ats>() || (command.words[0] & Ats::kReserved0) != 0) {
    return Step::kIllegal;
  }
  switch (Command::Func3::get(command.words[0])) {
    case Ats::kInval:
      return ats_invalidate_locked(command);
    case Ats::kPrgr:
      page_response_locked(command);
      return Step::kDone;
    default:
      return Step::kIllegal;
  }
}

DeviceCallbacks* CommandQueue::device_locked(DeviceId id) {
  const auto device = devices_.find(id);
  return device == devices_.end() ? nullptr : device->second;
}

/// Sends the request and goes on: a fence waits for its completion. With all tags in use the queue
/// stays at the command.
CommandQueue::Step CommandQueue::ats_invalidate_locked(const Command& command) {
  const auto [word, payload] = command.words;
  AtsInvalidation request;
  request.pasid = pasid_operand(word);
  request.global = request.pasid && Ats::InvalPayload::G::get(payload) != 0;
  decode_range(payload, request);
  const DeviceId id = destination(word);
  DeviceCallbacks* const device = device_locked(id);
  if (device == nullptr) {
    itags_.note_time_out();  // no completion ever comes
    return Step::kDone;
  }
  const auto deadline = new_deadline();
  const auto tag = itags_.claim(id, deadline);
  if (!tag) return Step::kWait;
  request.itag = tag->itag;
  request.sequence = tag->sequence;
  TANDEM_TRACE(ats_invalidate, request.pasid ? request.pasid->value : 0, request.address.value);
  switch (device->invalidate(request)) {
    case InvalidationReply::kCompleted:
      (void)itags_.complete(id, tag->itag, 1, tag->sequence);
      break;
    case InvalidationReply::kTimedOut:
      (void)itags_.expire(*tag);
      break;
    case InvalidationReply::kPending:
      if (deadline != ItagTable::TimePoint::max()) deadline_.tell(deadline);
      break;
  }
  return Step::kDone;
}

void CommandQueue::page_response_locked(const Command& command) {
  const auto [word, payload] = command.words;
  PageResponse response;
  response.pasid = pasid_operand(word);
  response.group = static_cast<std::uint16_t>(Ats::PrgrPayload::Prgi::get(payload));
  response.code = response_code(Ats::PrgrPayload::ResponseCode::get(payload));
  TANDEM_TRACE(page_response, response.pasid ? response.pasid->value : 0, response.code,
               response.group);
  if (DeviceCallbacks* const device = device_locked(destination(word))) {
    device->page_response(response);
  }
}

}  // namespace tandem::iommu::detail
