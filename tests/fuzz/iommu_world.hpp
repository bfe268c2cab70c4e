// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "input.hpp"
#include "tandem/base/check.hpp"
#include "tandem/base/mapping.hpp"
#include "tandem/iommu/iommu.hpp"

namespace tandem::fuzz {

using memory::PhysAddr;

/// Host memory for guests between two pages that nobody may touch.
class GuardedPages {
 public:
  explicit GuardedPages(std::size_t pages)
      : mapping_(std::move(*Mapping::anonymous((pages + 2) * kPageSize))) {
    TANDEM_CHECK(::mprotect(mapping_.data(), kPageSize, PROT_NONE) == 0);
    TANDEM_CHECK(::mprotect(mapping_.data() + mapping_.size() - kPageSize, kPageSize, PROT_NONE) ==
                 0);
  }
  std::span<std::byte> bytes() const {
    return mapping_.bytes().subspan(kPageSize, mapping_.size() - 2 * kPageSize);
  }

 private:
  Mapping mapping_;
};

/// An IOMMU before memory of some pages, a device, and what has to hold whatever software does.
///
/// From kRam on: kPages of RAM, a page that cannot be written, one that refuses every access.
/// Registers that the tests rely on themselves lie in no reach of addresses made by ram_address().
class IommuWorld : private iommu::DeviceCallbacks {
 public:
  static constexpr std::uint64_t kRam = 0x1'0000;
  static constexpr unsigned kPages = 32;
  static constexpr std::uint32_t kDevice = 3;

  explicit IommuWorld(Input& input);
  ~IommuWorld() override;

  Input& input() { return input_; }
  iommu::Iommu& iommu() { return *iommu_; }
  iommu::Port& port() { return *port_; }
  const memory::Memory& memory() const { return memory_; }
  void poison(PhysAddr at) { (void)memory_.set_poison(at, 8); }

  /// The number of a page: of RAM, mostly.
  std::uint64_t any_page() { return (kRam >> 12) + input_.below(kPages + 4); }
  PhysAddr any_word() {
    return PhysAddr{any_page() << 12}.plus(std::uint64_t{input_.take<std::uint16_t>()} % 512 * 8);
  }
  /// In the byte order of fctl.BE.
  void store(PhysAddr at, std::uint64_t value) {
    (void)memory_.store64(at, in_byte_order(value), std::memory_order_relaxed);
  }
  iommu::Requester any_requester();
  iommu::Access any_access() { return static_cast<iommu::Access>(input_.below(3)); }

  std::uint64_t read(std::uint32_t offset, unsigned size_bytes = 4) {
    return iommu_->mmio_read(offset, size_bytes);
  }
  void write(std::uint32_t offset, std::uint64_t value, unsigned size_bytes = 4) {
    iommu_->mmio_write(offset, value, size_bytes);
  }

  /// What the device was sent and has not completed.
  std::vector<iommu::AtsInvalidation> outstanding;

  /// Registers: reserved bits are 0, indices are in their rings.
  void check_registers();
  /// What a request has added to the fault queue, whose tail was `from` before.
  void check_records(std::uint64_t from);
  /// An answer that grants something.
  static void check(const iommu::Translation& translation);

 private:
  std::uint64_t in_byte_order(std::uint64_t word) {
    return iommu::Fctl::Be::get(read(iommu::reg::kFctl)) != 0 ? __builtin_bswap64(word) : word;
  }
  iommu::InvalidationReply invalidate(const iommu::AtsInvalidation& request) override;
  void page_response(const iommu::PageResponse& response) override;

  Input& input_;
  GuardedPages ram_{kPages};
  GuardedPages read_only_{1};
  memory::Memory memory_;
  std::unique_ptr<iommu::Iommu> iommu_;
  std::unique_ptr<iommu::Port> port_;
  std::uint64_t capabilities_ = 0;
};

}  // namespace tandem::fuzz
