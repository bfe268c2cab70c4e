// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "tandem/iommu/spec.hpp"

namespace tandem::iommu::detail {

/// What this IOMMU supports. Spec: §6.3 "IOMMU capabilities (capabilities)".
///
/// Not Svpbmt, second stages, MSI page tables, T2GPA, big-endian, performance counters, the debug
/// interface, QoS ids, and neither the non-leaf nor the range form of invalidation.
inline constexpr std::uint64_t kCapabilities =
    Capabilities::Version::make(0x10) | Capabilities::Sv39::make(1) | Capabilities::Sv48::make(1) |
    Capabilities::Sv57::make(1) | Capabilities::AmoHwad::make(1) | Capabilities::Ats::make(1) |
    Capabilities::Igs::make(Capabilities::kIgsWsi) | Capabilities::Pas::make(56) |
    Capabilities::Pd8::make(1) | Capabilities::Pd17::make(1) | Capabilities::Pd20::make(1);

/// fctl: little-endian, wire-signalled interrupts, GXL 0; nothing can be changed.
inline constexpr std::uint32_t kFctl = static_cast<std::uint32_t>(Fctl::Wsi::make(1));

}  // namespace tandem::iommu::detail
