// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/state.hpp"

namespace tandem::iommu {

/// Spec: §6.27 "IOMMU QoS ID (iommu_qosid)".
void Iommu::State::write_qosid(std::uint32_t value) {
  const std::uint64_t rcids = (std::uint64_t{1} << config.rcid_bits()) - 1;
  const std::uint64_t mcids = (std::uint64_t{1} << config.mcid_bits()) - 1;
  const std::uint64_t writable = IommuQosid::Rcid::make(rcids) | IommuQosid::Mcid::make(mcids);
  qosid.store(value & static_cast<std::uint32_t>(writable), std::memory_order_relaxed);
}

/// Spec: §3.1.3.3 "Translation attributes (ta)".
Result<QosIds, Cause> Port::qos_ids() const {
  Iommu::State& state = *iommu_.state_;
  const auto ids = [](std::uint64_t rcid, std::uint64_t mcid) {
    return QosIds{static_cast<std::uint16_t>(rcid), static_cast<std::uint16_t>(mcid)};
  };
  std::uint64_t pointer = 0;
  const auto context = state.device_context(id_, nullptr, &pointer);
  if (static_cast<Ddtp::ModeValue>(Ddtp::Mode::get(pointer)) == Ddtp::ModeValue::kBare) {
    const std::uint32_t word = state.qosid.load(std::memory_order_relaxed);
    return ids(IommuQosid::Rcid::get(word), IommuQosid::Mcid::get(word));
  }
  if (!context) return Unexpected{context.error()};
  using Ta = DeviceContext::Ta;
  return ids(Ta::Rcid::get(context->ta), Ta::Mcid::get(context->ta));
}

}  // namespace tandem::iommu
