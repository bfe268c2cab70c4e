// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/context_cache.hpp"

#include "tandem/base/planted_fault.hpp"

namespace tandem::iommu::detail {

std::optional<ExtendedDeviceContext> ContextCache::find_device(DeviceId device) const noexcept {
  DeviceEntry::Words words;
  if (!entry_of(device).read(words)) return std::nullopt;
  const auto& [key, which, sum, tc, iohgatp, ta, fsc, msiptp, mask, pattern] = words;
  if (key != key_of(device)) return std::nullopt;
  if (!generations_.holds({which, sum}) && !planted_fault("iommu-stale-device")) {
    return std::nullopt;
  }
  return ExtendedDeviceContext{{tc, iohgatp, ta, fsc}, msiptp, mask, pattern, 0};
}

void ContextCache::fill_device(DeviceId device, const ExtendedDeviceContext& context,
                               const Generations::Stamp& stamp) noexcept {
  entry_of(device).write({key_of(device), stamp.which, stamp.sum, context.tc, context.iohgatp,
                          context.ta, context.fsc, context.msiptp, context.msi_addr_mask,
                          context.msi_addr_pattern});
}

std::optional<ProcessContext> ContextCache::find_process(DeviceId device,
                                                         std::uint32_t process) const noexcept {
  ProcessEntry::Words words;
  if (!entry_of(device, process).read(words)) return std::nullopt;
  const auto& [key, which, sum, ta, fsc] = words;
  if (key != key_of(device, process)) return std::nullopt;
  if (!generations_.holds({which, sum}) && !planted_fault("iommu-stale-context")) {
    return std::nullopt;
  }
  return ProcessContext{ta, fsc};
}

void ContextCache::fill_process(DeviceId device, std::uint32_t process,
                                const ProcessContext& context,
                                const Generations::Stamp& stamp) noexcept {
  entry_of(device, process)
      .write({key_of(device, process), stamp.which, stamp.sum, context.ta, context.fsc});
}

}  // namespace tandem::iommu::detail
