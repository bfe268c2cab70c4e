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
        reserved_in_pte(reserved_pte_bits(chosen.capabilities)),
        fctl(initial_fctl()) {}
  explicit Config(std::uint64_t offered) : Config(Iommu::Options{.capabilities = offered}) {}

  const Iommu::Options options;
  const std::uint64_t capabilities;
  const std::uint64_t reserved_in_pte;  ///< bits of an entry of a page table
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
  /// Of what fctl.BE is about: device directory, second stage, MSI page tables, queues.
  bool big_endian() const { return Fctl::Be::get(load()) != 0; }
  /// Whether the second stage's only scheme is Sv32x4.
  bool has_32_bit_guests() const { return Fctl::Gxl::get(load()) != 0; }
  template <class FctlField>
  bool is_writable() const {
    return FctlField::get(writable_fctl()) != 0;
  }

  /// fctl after a reset: wires where there is a choice.
  std::uint32_t initial_fctl() const {
    return static_cast<std::uint32_t>(
        Fctl::Wsi::make(Capabilities::Igs::get(capabilities) != Capabilities::kIgsMsi) |
        Fctl::Be::make(options.big_endian));
  }
  /// The bits of fctl that software may change.
  std::uint32_t writable_fctl() const {
    return static_cast<std::uint32_t>(
        Fctl::Wsi::make(Capabilities::Igs::get(capabilities) == Capabilities::kIgsBoth) |
        Fctl::Be::make(has<Capabilities::End>()) |
        Fctl::Gxl::make(has<Capabilities::Sv32>() || has<Capabilities::Sv32x4>()));
  }

 private:
  static constexpr std::uint64_t reserved_pte_bits(std::uint64_t offered) {
    std::uint64_t bits = Pte::Reserved::kMask;
    if (Capabilities::Svrsw60t59b::get(offered) == 0) bits |= Pte::Rsw60t59b::kMask;
    if (Capabilities::Svpbmt::get(offered) == 0) bits |= Pte::Pbmt::kMask;
    return bits;
  }
  std::uint32_t load() const { return fctl.load(std::memory_order_acquire); }
};

}  // namespace tandem::iommu::detail
