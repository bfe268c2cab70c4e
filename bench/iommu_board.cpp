// SPDX-License-Identifier: Apache-2.0
#include "bench/iommu_board.hpp"

#include <utility>

#include "tandem/base/check.hpp"

namespace tandem::bench {

using iommu::DeviceContext;
using iommu::DirectoryEntry;
using iommu::Fsc;
using iommu::kPageShift;
using iommu::Pte;
using memory::PhysAddr;
namespace reg = iommu::reg;

IommuBoard::IommuBoard(bool nested) : host_(Mapping::anonymous(kRamBytes, false).value()) {
  TANDEM_CHECK(memory_.add_host_ram(PhysAddr{kRamBase}, host_.bytes()).has_value());
  // In base format: no MSI page tables.
  constexpr std::uint64_t kMsi = iommu::Capabilities::MsiFlat::kMask |
                                 iommu::Capabilities::MsiMrif::kMask |
                                 iommu::Capabilities::AmoMrif::kMask;
  iommu_ = std::make_unique<iommu::Iommu>(memory_, iommu::kAllCapabilities & ~kMsi);
  commands_ = allocate(sizeof(iommu::Command) << kLog2Commands);
  iommu_->mmio_write(reg::kCqb, iommu::QueueBase::make(kLog2Commands, commands_ >> kPageShift), 8);
  iommu_->mmio_write(reg::kCqcsr, iommu::Cqcsr::Cqen::make(1), 4);
  device_directory_ = allocate(iommu::kPageBytes);
  process_directory_ = allocate(iommu::kPageBytes);
  using Tc = DeviceContext::Tc;
  DeviceContext context;
  context.tc = Tc::V::make(1) | Tc::EnAts::make(1) | Tc::Pdtv::make(1);
  context.fsc = Fsc::make(iommu::PdtpMode::kPd20, process_directory_ >> kPageShift);
  if (nested) {
    const Tables guest = make_tables(/*second_stage=*/true);
    for (std::uint64_t at = kRamBase; at < kRamBase + kRamBytes; at += iommu::kPageBytes) {
      map(guest, at, at);
    }
    context.iohgatp =
        DeviceContext::Iohgatp::make(iommu::SecondStageMode::kSv48x4, guest.root_ppn, kGscid);
  }
  set_device_context(kDevice, context);
  iommu_->mmio_write(
      reg::kDdtp, iommu::Ddtp::make(iommu::Ddtp::ModeValue::k3Lvl, device_directory_ >> kPageShift),
      8);
}

std::uint64_t IommuBoard::allocate(std::uint64_t bytes, std::uint64_t alignment) {
  next_ = (next_ + alignment - 1) & ~(alignment - 1);
  const std::uint64_t at = std::exchange(next_, next_ + round_up_to_page(bytes));
  TANDEM_CHECK(next_ <= kRamBase + kRamBytes);
  return at;
}

std::uint64_t IommuBoard::load(std::uint64_t at) {
  return memory_.load64(PhysAddr{at}, std::memory_order_relaxed).value();
}

void IommuBoard::store(std::uint64_t at, std::uint64_t value) {
  memory_.store64(PhysAddr{at}, value, std::memory_order_release).value();
}

std::uint64_t IommuBoard::next_table(std::uint64_t at) {
  if (DirectoryEntry::V::get(load(at)) == 0) {
    store(at, DirectoryEntry::make(allocate(iommu::kPageBytes) >> kPageShift));
  }
  return DirectoryEntry::Ppn::get(load(at)) << kPageShift;
}

Tables IommuBoard::make_tables(bool second_stage) {
  const std::uint64_t bytes = iommu::kPageBytes * (second_stage ? 4 : 1);
  return {.root_ppn = allocate(bytes, bytes) >> kPageShift, .second_stage = second_stage};
}

void IommuBoard::map(const Tables& tables, std::uint64_t from, std::uint64_t to) {
  std::uint64_t table = tables.root_ppn << kPageShift;
  for (unsigned level = tables.levels - 1;; --level) {
    const unsigned bits =
        Pte::kIndexBits + (tables.second_stage && level == tables.levels - 1 ? 2 : 0);
    const std::uint64_t index =
        from >> (kPageShift + level * Pte::kIndexBits) & ((std::uint64_t{1} << bits) - 1);
    const std::uint64_t entry = table + index * sizeof index;
    if (level > 0) {
      table = next_table(entry);
      continue;
    }
    constexpr std::uint64_t kLeaf = Pte::V::kMask | Pte::R::kMask | Pte::W::kMask | Pte::U::kMask |
                                    Pte::A::kMask | Pte::D::kMask;
    return store(entry, Pte::Ppn::make(to >> kPageShift) | kLeaf);
  }
}

void IommuBoard::set_process(iommu::Pasid pasid, const Tables& tables) {
  std::uint64_t table = process_directory_;
  for (unsigned level = 2; level > 0; --level) {
    table = next_table(table + iommu::Pdi::index(level, pasid.value) * sizeof table);
  }
  const std::uint64_t entry =
      table + iommu::Pdi::index(0, pasid.value) * sizeof(iommu::ProcessContext);
  using Ta = iommu::ProcessContext::Ta;
  store(entry + sizeof entry, Fsc::make(iommu::FirstStageMode::kSv48, tables.root_ppn));
  store(entry, Ta::V::make(1) | Ta::Pscid::make(pasid.value));
}

void IommuBoard::set_device(iommu::DeviceId device, std::uint32_t pscid, const Tables& tables) {
  DeviceContext context;
  context.tc = DeviceContext::Tc::V::make(1);
  context.ta = DeviceContext::Ta::Pscid::make(pscid);
  context.fsc = Fsc::make(iommu::FirstStageMode::kSv48, tables.root_ppn);
  set_device_context(device, context);
}

void IommuBoard::set_device_context(iommu::DeviceId device, const DeviceContext& context) {
  std::uint64_t table = device_directory_;
  for (unsigned level = 2; level > 0; --level) {
    table = next_table(table + iommu::Ddi::index(level, device.value) * sizeof table);
  }
  const std::uint64_t entry = table + iommu::Ddi::index(0, device.value) * sizeof context;
  store(entry + offsetof(DeviceContext, iohgatp), context.iohgatp);
  store(entry + offsetof(DeviceContext, ta), context.ta);
  store(entry + offsetof(DeviceContext, fsc), context.fsc);
  store(entry, context.tc);
}

void IommuBoard::run(std::initializer_list<iommu::Command> commands) {
  for (const iommu::Command& command : commands) {
    const std::uint64_t at = commands_ + tail_ * sizeof command;
    store(at, command.words[0]);
    store(at + sizeof at, command.words[1]);
    tail_ = (tail_ + 1) % (1U << kLog2Commands);
  }
  iommu_->mmio_write(reg::kCqt, tail_, 4);
  TANDEM_CHECK(iommu_->mmio_read(reg::kCqh, 4) == tail_);
}

}  // namespace tandem::bench
