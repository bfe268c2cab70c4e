// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/command_queue.hpp"

#include <span>

#include "tandem/base/planted_fault.hpp"
#include "tandem/iommu/detail/interrupts.hpp"
#include "tandem/iommu/detail/mrif.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/trace/trace.hpp"

namespace tandem::iommu::detail {
namespace {

constexpr std::uint64_t kStalls = Cqcsr::Cqmf::kMask | Cqcsr::CmdTo::kMask | Cqcsr::CmdIll::kMask;
constexpr std::uint64_t kSticky = kStalls | Cqcsr::FenceWIp::kMask;

constexpr unsigned kItags = 32;

/// The range that an ATS.INVAL payload names. Spec: §4.1.4 "IOMMU PCIe ATS commands"; PCIe.
void decode_range(std::uint64_t payload, AtsInvalidation& request) {
  using Payload = Ats::InvalPayload;
  const std::uint64_t address = payload & Payload::Address::kMask;
  if (Payload::S::get(payload) == 0) {
    request.address = Iova{address};
    request.size_bytes = kPageBytes;
    return;
  }
  const std::uint64_t page = Payload::Address::get(payload);
  const auto ones = static_cast<unsigned>(__builtin_ctzll(~page));
  const unsigned log2_size = kPageShift + ones + 1;
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

bool CommandQueue::attach(DeviceId id, DeviceCallbacks& callbacks) {
  const MutexLock lock(mutex_);
  return devices_.emplace(id, &callbacks).second;
}

void CommandQueue::detach(DeviceId id) {
  const MutexLock lock(mutex_);
  devices_.erase(id);
}

void CommandQueue::write_base(std::uint64_t value) {
  const MutexLock lock(mutex_);
  if (Cqcsr::Cqon::get(csr_.load(std::memory_order_relaxed)) != 0) return;  // UNSPECIFIED: ignored
  base_.store(value & kQueueBaseMask, std::memory_order_relaxed);
  tail_.store(tail_.load(std::memory_order_relaxed) & ring_mask(value), std::memory_order_relaxed);
}

bool CommandQueue::write_tail(std::uint32_t value) {
  const MutexLock lock(mutex_);
  tail_.store(value & ring_mask(base_.load(std::memory_order_relaxed)), std::memory_order_relaxed);
  process_locked();
  return pend_locked();
}

bool CommandQueue::write_csr(std::uint32_t value) {
  const MutexLock lock(mutex_);
  const std::uint32_t old = csr_.load(std::memory_order_relaxed);
  const bool enable = Cqcsr::Cqen::get(value) != 0;
  std::uint64_t sticky = old & ~value & kSticky;
  if (enable && Cqcsr::Cqen::get(old) == 0) {
    sticky = 0;
    head_.store(0, std::memory_order_release);
    invalidation_timed_out_ = false;
  }
  csr_.store(static_cast<std::uint32_t>(sticky | Cqcsr::Cqen::make(enable) |
                                        Cqcsr::Cqon::make(enable) | (value & Cqcsr::Cie::kMask)),
             std::memory_order_release);
  process_locked();
  return pend_locked();
}

bool CommandQueue::clear_pending() {
  const MutexLock lock(mutex_);
  pending_.store(false, std::memory_order_release);
  return pend_locked();
}

bool CommandQueue::pend_locked() {
  const std::uint32_t csr = csr_.load(std::memory_order_relaxed);
  if (Cqcsr::Cie::get(csr) == 0 || (csr & kSticky) == 0) return false;
  return !pending_.exchange(true, std::memory_order_acq_rel);
}

void CommandQueue::set_csr_locked(std::uint64_t bits) {
  csr_.store(csr_.load(std::memory_order_relaxed) | static_cast<std::uint32_t>(bits),
             std::memory_order_release);
}

void CommandQueue::process_locked() {
  const std::uint64_t base = base_.load(std::memory_order_relaxed);
  const std::uint32_t mask = ring_mask(base);
  while (true) {
    const std::uint32_t csr = csr_.load(std::memory_order_relaxed);
    const std::uint32_t head = head_.load(std::memory_order_relaxed);
    if (Cqcsr::Cqon::get(csr) == 0 || (csr & kStalls) != 0) return;
    if (head == tail_.load(std::memory_order_relaxed)) return;

    Command command;
    PhysAddr at = ring_entry(base, head, sizeof command);
    for (std::uint64_t& word : command.words) {
      const auto loaded = memory_.load64(at, std::memory_order_acquire);
      if (!loaded) return set_csr_locked(Cqcsr::Cqmf::kMask);
      word = *loaded;
      at = at.plus(sizeof word);
    }
    switch (execute_locked(command)) {
      case Step::kDone:
        head_.store((head + 1) & mask, std::memory_order_release);
        break;
      case Step::kIllegal:
        return set_csr_locked(Cqcsr::CmdIll::kMask);
      case Step::kMemoryFault:
        return set_csr_locked(Cqcsr::Cqmf::kMask);
      case Step::kTimeout:
        return set_csr_locked(Cqcsr::CmdTo::kMask);
    }
  }
}

CommandQueue::Step CommandQueue::execute_locked(const Command& command) {
  switch (static_cast<Command::OpcodeValue>(Command::Opcode::get(command.words[0]))) {
    case Command::OpcodeValue::kIotinval:
      return iotinval_locked(command);
    case Command::OpcodeValue::kIofence:
      return iofence_locked(command);
    case Command::OpcodeValue::kIodir:
      return iodir_locked(command);
    case Command::OpcodeValue::kAts:
      return ats_locked(command);
  }
  return Step::kIllegal;
}

/// Spec: §4.1.2 "IOMMU Command-queue Fence commands".
///
/// Commands run in order and to their end, so what is left to wait for are accesses through
/// translations made before: they run inside reader sections, which the grace period outlasts.
CommandQueue::Step CommandQueue::iofence_locked(const Command& command) {
  const auto [word, target] = command.words;
  if ((word & Iofence::kReserved0) != 0 || (target & Iofence::kReserved1) != 0 ||
      Command::Func3::get(word) != Iofence::kC) {
    return Step::kIllegal;
  }
  if (Iofence::Wsi::get(word) != 0 && !config_.wire_interrupts()) return Step::kIllegal;
  const bool orders = Iofence::Pr::get(word) != 0 || Iofence::Pw::get(word) != 0;
  if (accesses_to_wait_for_ || orders) {
    if (!planted_fault("iommu-skip-fence-wait")) rcu::rcu_synchronize();
    accesses_to_wait_for_ = false;
  }
  if (invalidation_timed_out_) {
    invalidation_timed_out_ = false;
    return Step::kTimeout;
  }
  if (Iofence::Av::get(word) != 0) {
    const PhysAddr at{Iofence::Addr::get(target) << 2};
    const auto data = static_cast<std::uint32_t>(Iofence::Data::get(word));
    if (!store_message(memory_, at, data)) return Step::kMemoryFault;
  }
  if (Iofence::Wsi::get(word) != 0) set_csr_locked(Cqcsr::FenceWIp::kMask);
  return Step::kDone;
}

/// Spec: §4.1.4 "IOMMU PCIe ATS commands".
CommandQueue::Step CommandQueue::ats_locked(const Command& command) {
  if (!config_.has<Capabilities::Ats>() || (command.words[0] & Ats::kReserved0) != 0) {
    return Step::kIllegal;
  }
  switch (Command::Func3::get(command.words[0])) {
    case Ats::kInval:
      ats_invalidate_locked(command);
      return Step::kDone;
    case Ats::kPrgr:
      page_response_locked(command);
      return Step::kDone;
    default:
      return Step::kIllegal;
  }
}

DeviceCallbacks* CommandQueue::destination_locked(const Command& command) {
  const std::uint64_t word = command.words[0];
  const std::uint64_t segment = Ats::Dsv::get(word) != 0 ? Ats::Dseg::get(word) : 0;
  const DeviceId id{static_cast<std::uint32_t>(segment << Ats::Rid::kWidth | Ats::Rid::get(word))};
  const auto device = devices_.find(id);
  return device == devices_.end() ? nullptr : device->second;
}

void CommandQueue::ats_invalidate_locked(const Command& command) {
  const auto [word, payload] = command.words;
  AtsInvalidation request;
  request.pasid = pasid_operand(word);
  request.global = request.pasid && Ats::InvalPayload::G::get(payload) != 0;
  decode_range(payload, request);
  request.itag = next_itag_;
  next_itag_ = static_cast<std::uint8_t>((next_itag_ + 1) % kItags);
  TANDEM_TRACE(ats_invalidate, request.pasid ? request.pasid->value : 0, request.address.value);
  // Nobody there: no completion ever comes.
  DeviceCallbacks* const device = destination_locked(command);
  if (device == nullptr || !device->ats_invalidate(request)) invalidation_timed_out_ = true;
}

void CommandQueue::page_response_locked(const Command& command) {
  const auto [word, payload] = command.words;
  PageResponse response;
  response.pasid = pasid_operand(word);
  response.group = static_cast<std::uint16_t>(Ats::PrgrPayload::Prgi::get(payload));
  response.code = response_code(Ats::PrgrPayload::ResponseCode::get(payload));
  TANDEM_TRACE(page_response, response.pasid ? response.pasid->value : 0, response.code);
  if (DeviceCallbacks* const device = destination_locked(command)) device->page_response(response);
}

}  // namespace tandem::iommu::detail
