// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/context_cache.hpp"

namespace tandem::iommu::detail {

void ContextCache::fill_device(DeviceId device, const ExtendedDeviceContext& context,
                               const Generations::Stamp& stamp) noexcept {
  entry_of(device).write({key_of(device), stamp.which, stamp.sum, context.tc, context.iohgatp,
                          context.ta, context.fsc, context.msiptp, context.msi_addr_mask,
                          context.msi_addr_pattern});
}

void ContextCache::fill_process(DeviceId device, std::uint32_t process,
                                const ProcessContext& context,
                                const Generations::Stamp& stamp) noexcept {
  entry_of(device, process)
      .write({key_of(device, process), stamp.which, stamp.sum, context.ta, context.fsc});
}

}  // namespace tandem::iommu::detail
