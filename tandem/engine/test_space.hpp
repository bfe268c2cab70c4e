// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "tandem/base/check.hpp"
#include "tandem/base/mapping.hpp"
#include "tandem/iommu/iommu.hpp"
#include "tandem/iommu/spec.hpp"
#include "tandem/memory/memory.hpp"
#include "tandem/pcie/pcie.hpp"

namespace tandem::engine {

/// For tests of engines: a real endpoint, behind a real IOMMU whose device context translates every
/// address to itself, before host RAM, read-only memory and an aperture that refuses in its middle.
///
/// Thread safety: as pcie::Endpoint.
class TestSpace {
 public:
  static constexpr std::uint64_t kRam = 0x8000'0000;  ///< host RAM; nothing decodes what follows it
  static constexpr std::size_t kRamBytes = std::size_t{48} << 20;
  static constexpr std::uint64_t kReadOnly = 0x9000'0000;  ///< the same bytes as at kRam
  static constexpr std::size_t kReadOnlyBytes = std::size_t{1} << 20;
  static constexpr std::uint64_t kAperture = 0xa000'0000;
  static constexpr std::size_t kApertureBytes = std::size_t{1} << 20;
  static constexpr std::size_t kApertureLimit = 700'001;  ///< refuses from this offset on

  TestSpace() : iommu_(memory_) {
    using iommu::DeviceContext;
    using Tc = DeviceContext::Tc;
    TANDEM_CHECK(memory_.add_host_ram({kRam}, ram_.bytes()));
    TANDEM_CHECK(memory_.add_host_ram({kReadOnly}, ram_.bytes().first(kReadOnlyBytes), false));
    TANDEM_CHECK(memory_.add_io({kAperture}, kApertureBytes, aperture_));
    TANDEM_CHECK(memory_.add_host_ram({kTables}, tables_.bytes()));
    const std::uint64_t tc = Tc::V::make(1) | Tc::EnAts::make(1);
    std::memcpy(tables_.data() + kDevice.value * sizeof(DeviceContext), &tc, sizeof tc);
    iommu_.mmio_write(iommu::reg::kDdtp,
                      iommu::Ddtp::make(iommu::Ddtp::ModeValue::k1Lvl, kTables >> 12), 8);
    auto made = pcie::Endpoint::create(iommu_, kDevice, {.pasid = false, .pri = false});
    TANDEM_CHECK(made);
    endpoint_ = std::move(*made);
  }

  pcie::AddressSpace space() { return endpoint_->space(std::nullopt); }
  std::span<std::byte> ram() { return ram_.bytes(); }
  std::span<std::byte> aperture() { return aperture_->bytes; }

 private:
  static constexpr std::uint64_t kTables = 0x1000;
  static constexpr iommu::DeviceId kDevice{5};

  struct Aperture final : memory::IoRegion {
    memory::Outcome read(std::uint64_t offset, std::span<std::byte> to) override {
      const std::size_t size = allowed(offset, to.size());
      std::memcpy(to.data(), bytes.data() + offset, size);
      return outcome(size, to.size());
    }
    memory::Outcome write(std::uint64_t offset, std::span<const std::byte> from) override {
      const std::size_t size = allowed(offset, from.size());
      std::memcpy(bytes.data() + offset, from.data(), size);
      return outcome(size, from.size());
    }
    static std::size_t allowed(std::uint64_t offset, std::size_t size) {
      return offset >= kApertureLimit ? 0 : std::min<std::size_t>(size, kApertureLimit - offset);
    }
    static memory::Outcome outcome(std::size_t done, std::size_t size) {
      return {done, done == size ? memory::Fault::kNone : memory::Fault::kRefused};
    }
    Mapping storage = std::move(*Mapping::anonymous(kApertureBytes));
    std::span<std::byte> bytes = storage.bytes();
  };

  Mapping ram_ = std::move(*Mapping::anonymous(kRamBytes));
  Mapping tables_ = std::move(*Mapping::anonymous(4096));
  std::shared_ptr<Aperture> aperture_ = std::make_shared<Aperture>();
  memory::Memory memory_;
  iommu::Iommu iommu_;
  std::unique_ptr<pcie::Endpoint> endpoint_;
};

}  // namespace tandem::engine
