// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/state.hpp"

namespace tandem::iommu {
namespace detail {

FaultRecord make_fault_record(Cause cause, TransactionType type, DeviceId device,
                              const Requester& requester, std::uint64_t iotval,
                              std::uint64_t iotval2) {
  FaultRecord record;
  record.head = FaultRecord::CauseBits::make(static_cast<std::uint64_t>(cause)) |
                FaultRecord::Ttyp::make(static_cast<std::uint64_t>(type)) |
                FaultRecord::Did::make(device.value);
  if (requester.pasid) {
    record.head |= FaultRecord::Pv::make(1) | FaultRecord::Pid::make(requester.pasid->value) |
                   FaultRecord::Priv::make(requester.privileged);
  }
  record.iotval = iotval;
  record.iotval2 = iotval2;
  return record;
}

bool reported_despite_dtf(Cause cause) {
  switch (cause) {
    case Cause::kAllInboundDisallowed:
    case Cause::kDdtLoadFault:
    case Cause::kDdtNotValid:
    case Cause::kDdtMisconfigured:
    case Cause::kDdtCorrupt:
    case Cause::kInternalDataPathError:
    case Cause::kIommuMsiWriteFault:
      return true;
    default:
      return false;
  }
}

}  // namespace detail

/// Spec: §4.2 "Fault/Event-Queue (FQ)".
void Iommu::State::report(const TransactionFault& fault, TransactionType type, DeviceId device,
                          const Requester& requester, std::uint64_t iotval) {
  faults_seen.fetch_add(1, std::memory_order_relaxed);
  if (fault.hides && !detail::reported_despite_dtf(fault.cause)) return;
  const FaultRecord record =
      detail::make_fault_record(fault.cause, type, device, requester, iotval, fault.iotval2);
  const std::uint64_t words[] = {record.head, record.custom, record.iotval, record.iotval2};
  signal_if(faults.push(words).raised, Interrupt::kFaultQueue);
}

}  // namespace tandem::iommu
