// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

#include "tandem/iommu/iommu.hpp"

namespace tandem::iommu::detail {

/// What one IOMMU offers and how software has set it up.
///
/// Spec: §6.3 "IOMMU capabilities (capabilities)", §6.4 "Features-control register (fctl)".
struct Config {
  explicit Config(const Iommu::Options& chosen)
      : options(chosen),
        capabilities(chosen.capabilities),
        fctl(initial_fctl(chosen.capabilities)) {}
  explicit Config(std::uint64_t offered) : Config(Iommu::Options{.capabilities = offered}) {}

  const Iommu::Options options;
  const std::uint64_t capabilities;
  /// Written while ddtp is Off and the queues are; read by every transaction that misses.
  std::atomic<std::uint32_t> fctl;

  template <class CapabilityField>
  bool has() const {
    return CapabilityField::get(capabilities) != 0;
  }
  /// QoS ids are 0 without the capability.
  unsigned rcid_bits() const { return has<Capabilities::Qosid>() ? options.rcid_bits : 0; }
  unsigned mcid_bits() const { return has<Capabilities::Qosid>() ? options.mcid_bits : 0; }
  bool wire_interrupts() const { return Fctl::Wsi::get(load()) != 0; }

  /// fctl after a reset: wires where there is a choice.
  static constexpr std::uint32_t initial_fctl(std::uint64_t offered) {
    return static_cast<std::uint32_t>(
        Fctl::Wsi::make(Capabilities::Igs::get(offered) != Capabilities::kIgsMsi));
  }
  /// The bits of fctl that software may change.
  static constexpr std::uint32_t writable_fctl(std::uint64_t offered) {
    const bool both = Capabilities::Igs::get(offered) == Capabilities::kIgsBoth;
    return static_cast<std::uint32_t>(Fctl::Wsi::make(both));
  }

 private:
  std::uint32_t load() const { return fctl.load(std::memory_order_acquire); }
};

}  // namespace tandem::iommu::detail
