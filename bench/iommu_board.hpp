// SPDX-License-Identifier: Apache-2.0
/// RAM, an IOMMU before it, and a driver's part: what the iommu benchmarks translate with.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>

#include "tandem/base/mapping.hpp"
#include "tandem/iommu/iommu.hpp"
#include "tandem/memory/memory.hpp"

namespace tandem::bench {

/// A device that nobody sends anything.
class SilentDevice : public iommu::DeviceCallbacks {
 public:
  bool ats_invalidate(const iommu::AtsInvalidation&) override { return true; }
  void page_response(const iommu::PageResponse&) override {}
};

/// Levels of a page table, and whether its root is a second stage's, of 16 KiB.
struct Tables {
  std::uint64_t root_ppn = 0;
  unsigned levels = 4;
  bool second_stage = false;
};

/// Every failure is a failed check: nothing here depends on who runs it.
class IommuBoard {
 public:
  static constexpr std::uint64_t kRamBase = 0x8000'0000;
  static constexpr std::uint64_t kRamBytes = std::uint64_t{64} << 20;
  static constexpr iommu::DeviceId kDevice{8};
  static constexpr std::uint32_t kGscid = 1;

  /// 3LVL device directory; kDevice, with ATS, has a PD20 process directory. `nested`: and a second
  /// stage, Sv48x4, that maps RAM as it is by 4-KiB pages.
  explicit IommuBoard(bool nested = false);

  iommu::Iommu& iommu() { return *iommu_; }
  memory::Memory& memory() { return memory_; }
  /// Of page-aligned RAM, all zero.
  std::uint64_t allocate(std::uint64_t bytes, std::uint64_t alignment = iommu::kPageBytes);

  Tables make_tables(bool second_stage = false);
  /// Maps 4 KiB, readable, writable, used and dirty.
  void map(const Tables& tables, std::uint64_t from, std::uint64_t to);
  /// The address space of `pasid` at kDevice; its PSCID is the PASID.
  void set_process(iommu::Pasid pasid, const Tables& tables);
  /// A device whose own address space `tables` is.
  void set_device(iommu::DeviceId device, std::uint32_t pscid, const Tables& tables);
  /// Runs commands to their end. Thread safety: one thread at a time.
  void run(std::initializer_list<iommu::Command> commands);

 private:
  static constexpr unsigned kLog2Commands = 8;

  std::uint64_t load(std::uint64_t at);
  void store(std::uint64_t at, std::uint64_t value);
  /// The table that the entry at `at` points to; made if there is none.
  std::uint64_t next_table(std::uint64_t at);
  void set_device_context(iommu::DeviceId device, const iommu::DeviceContext& context);

  Mapping host_;
  memory::Memory memory_;
  std::unique_ptr<iommu::Iommu> iommu_;
  std::uint64_t next_ = kRamBase;
  std::uint64_t commands_ = 0;
  std::uint32_t tail_ = 0;
  std::uint64_t device_directory_ = 0;
  std::uint64_t process_directory_ = 0;
};

}  // namespace tandem::bench
