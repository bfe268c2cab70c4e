// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

#include "tandem/base/mapping.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/iommu/detail/page_table.hpp"
#include "tandem/iommu/iommu.hpp"

/// A machine to test the IOMMU in: RAM, a driver's helpers, and a device that records messages.
namespace tandem::iommu::detail {

/// Records what it is sent.
class FakeDevice : public DeviceCallbacks {
 public:
  InvalidationReply invalidate(const AtsInvalidation& request) override {
    const MutexLock lock(mutex_);
    invalidations_.push_back(request);
    return reply;
  }
  void page_response(const PageResponse& response) override {
    const MutexLock lock(mutex_);
    responses_.push_back(response);
  }
  std::vector<AtsInvalidation> take_invalidations() {
    const MutexLock lock(mutex_);
    return std::exchange(invalidations_, {});
  }
  std::vector<PageResponse> take_responses() {
    const MutexLock lock(mutex_);
    return std::exchange(responses_, {});
  }
  std::atomic<InvalidationReply> reply{InvalidationReply::kCompleted};

 private:
  Mutex mutex_;
  std::vector<AtsInvalidation> invalidations_ TANDEM_GUARDED_BY(mutex_);
  std::vector<PageResponse> responses_ TANDEM_GUARDED_BY(mutex_);
};

class Board : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kRamBase = 0x8000'0000;
  static constexpr std::uint64_t kRamBytes = 32U << 20;
  static constexpr unsigned kLog2Queue = 3;
  /// Nothing decodes this page.
  static constexpr std::uint64_t kHolePpn = 0x12345;
  static constexpr std::uint64_t kLeaf =
      Pte::V::kMask | Pte::R::kMask | Pte::W::kMask | Pte::U::kMask | Pte::A::kMask | Pte::D::kMask;
  static constexpr std::uint32_t kPscid = 77;
  static constexpr DeviceId kDevice{0x22};
  static constexpr Pasid kPasid{5};

  explicit Board(std::uint64_t capabilities = kHostCapabilities)
      : Board(Iommu::Options{.capabilities = capabilities}) {}
  explicit Board(const Iommu::Options& options)
      : extended_(Capabilities::MsiFlat::get(options.capabilities) != 0),
        host_(std::move(*Mapping::anonymous(kRamBytes))),
        ram_(kRamBase + kPageBytes) {
    EXPECT_TRUE(memory_.add_host_ram(memory::PhysAddr{kRamBase}, host_.bytes()).has_value());
    iommu_ = std::make_unique<Iommu>(memory_, options);
    iommu_->on_interrupt(
        [this](Iommu::Interrupt cause) { ++interrupts_[static_cast<std::size_t>(cause)]; });
    port_ = std::move(*iommu_->attach(kDevice, device_));
  }

  // ---- memory
  std::uint64_t allocate_page() { return std::exchange(ram_, ram_ + kPageBytes) >> kPageShift; }
  std::uint64_t allocate_pages_aligned(std::uint64_t bytes) {
    ram_ = (ram_ + bytes - 1) & ~(bytes - 1);
    return std::exchange(ram_, ram_ + bytes) >> kPageShift;
  }
  void store(std::uint64_t at, std::uint64_t value, bool big_endian = false) {
    ASSERT_TRUE(memory_
                    .store64(memory::PhysAddr{at}, in_byte_order(value, big_endian),
                             std::memory_order_release)
                    .has_value());
  }
  std::uint64_t load(std::uint64_t at, bool big_endian = false) {
    const auto value = memory_.load64(memory::PhysAddr{at}, std::memory_order_acquire);
    EXPECT_TRUE(value.has_value()) << std::hex << at;
    return in_byte_order(value.value_or(0), big_endian);
  }
  /// An entry of a page table.
  void store_entry(const Scheme& scheme, std::uint64_t at, std::uint64_t pte) {
    if (!scheme.is_sv32()) return store(at, pte, scheme.big_endian);
    const auto half = in_byte_order(static_cast<std::uint32_t>(pte), scheme.big_endian);
    ASSERT_TRUE(memory_.store32(memory::PhysAddr{at}, half, std::memory_order_release).has_value());
  }
  std::uint64_t load_entry(const Scheme& scheme, std::uint64_t at) {
    TableReader reader(memory_);
    const auto pte = detail::load_entry(reader, scheme, memory::PhysAddr{at});
    EXPECT_TRUE(pte.has_value()) << std::hex << at;
    return pte.value_or(0);
  }

  // ---- registers
  std::uint64_t read(std::uint32_t offset, unsigned size_bytes = 4) {
    return iommu_->mmio_read(offset, size_bytes);
  }
  void write(std::uint32_t offset, std::uint64_t value, unsigned size_bytes = 4) {
    iommu_->mmio_write(offset, value, size_bytes);
  }
  int interrupts(Iommu::Interrupt cause) { return interrupts_[static_cast<std::size_t>(cause)]; }

  // ---- queues
  void enable_queues() {
    command_ring_ = allocate_page() << kPageShift;
    fault_ring_ = allocate_page() << kPageShift;
    page_ring_ = allocate_page() << kPageShift;
    write(reg::kCqb, QueueBase::make(kLog2Queue, command_ring_ >> kPageShift), 8);
    write(reg::kFqb, QueueBase::make(kLog2Queue, fault_ring_ >> kPageShift), 8);
    write(reg::kPqb, QueueBase::make(kLog2Queue, page_ring_ >> kPageShift), 8);
    write(reg::kCqcsr, Cqcsr::Cqen::make(1) | Cqcsr::Cie::make(1));
    write(reg::kFqcsr, Fqcsr::Fqen::make(1) | Fqcsr::Fie::make(1));
    write(reg::kPqcsr, Pqcsr::Pqen::make(1) | Pqcsr::Pie::make(1));
  }
  /// Queues commands and rings the doorbell.
  void submit(std::initializer_list<Command> commands) {
    auto tail = static_cast<std::uint32_t>(read(reg::kCqt));
    for (const Command& command : commands) {
      store(command_ring_ + tail * 16, command.words[0], big_endian_);
      store(command_ring_ + tail * 16 + 8, command.words[1], big_endian_);
      tail = (tail + 1) % (1U << kLog2Queue);
    }
    write(reg::kCqt, tail);
  }
  void fence() { submit({iofence_c({})}); }
  /// Has the directories read again.
  void forget_contexts() { submit({iodir_inval_ddt(std::nullopt)}); }
  bool idle() { return read(reg::kCqh) == read(reg::kCqt); }
  std::uint64_t error_bits() {
    return read(reg::kCqcsr) & (Cqcsr::Cqmf::kMask | Cqcsr::CmdTo::kMask | Cqcsr::CmdIll::kMask);
  }
  void clear_errors() {
    write(reg::kCqcsr, Cqcsr::Cqen::kMask | Cqcsr::Cie::kMask | Cqcsr::Cqmf::kMask |
                           Cqcsr::CmdTo::kMask | Cqcsr::CmdIll::kMask | Cqcsr::FenceWIp::kMask);
  }
  /// Whether the command stops the queue as illegal. Skips it then.
  bool illegal(const Command& command) {
    submit({command});
    if (idle()) return false;
    EXPECT_EQ(error_bits(), Cqcsr::CmdIll::kMask);
    write(reg::kCqcsr, 0);
    write(reg::kCqt, 0);
    write(reg::kCqcsr, Cqcsr::Cqen::kMask | Cqcsr::Cie::kMask);
    return true;
  }
  bool illegal(Command command, unsigned word, unsigned bit) {
    command.words[word] |= std::uint64_t{1} << bit;
    return illegal(command);
  }

  std::vector<FaultRecord> take_faults() {
    std::vector<FaultRecord> records;
    auto head = static_cast<std::uint32_t>(read(reg::kFqh));
    for (; head != read(reg::kFqt); head = (head + 1) % (1U << kLog2Queue)) {
      const std::uint64_t at = fault_ring_ + head * 32;
      records.push_back({load(at, big_endian_), load(at + 8, big_endian_),
                         load(at + 16, big_endian_), load(at + 24, big_endian_)});
    }
    write(reg::kFqh, head);
    return records;
  }
  std::vector<PageRequestRecord> take_page_requests() {
    std::vector<PageRequestRecord> records;
    auto head = static_cast<std::uint32_t>(read(reg::kPqh));
    for (; head != read(reg::kPqt); head = (head + 1) % (1U << kLog2Queue)) {
      const std::uint64_t at = page_ring_ + head * 16;
      records.push_back({load(at, big_endian_), load(at + 8, big_endian_)});
    }
    write(reg::kPqh, head);
    return records;
  }

  // ---- directories
  void set_ddtp(Ddtp::ModeValue mode) {
    if (ddt_root_ == 0) ddt_root_ = allocate_page();
    ddt_levels_ = static_cast<unsigned>(mode) - 1;
    write(reg::kDdtp, Ddtp::make(mode, ddt_root_), 8);
  }
  /// Where entry `device` of the leaf directory lies; makes the tables on the way.
  std::uint64_t device_slot(DeviceId device) {
    std::uint64_t page = ddt_root_;
    for (unsigned level = ddt_levels_ - 1; level > 0; --level) {
      page = next_table(directory_order(big_endian_),
                        (page << kPageShift) + device_index(level, device) * 8);
    }
    const auto bytes = extended_ ? sizeof(ExtendedDeviceContext) : sizeof(DeviceContext);
    return (page << kPageShift) + device_index(0, device) * bytes;
  }
  std::uint64_t device_index(unsigned level, DeviceId device) const {
    return extended_ ? ExtendedDdi::index(level, device.value) : Ddi::index(level, device.value);
  }
  void set_device(DeviceId device, const ExtendedDeviceContext& context) {
    const std::uint64_t at = device_slot(device);
    if (extended_) {
      store(at + 32, context.msiptp, big_endian_);
      store(at + 40, context.msi_addr_mask, big_endian_);
      store(at + 48, context.msi_addr_pattern, big_endian_);
    }
    store(at + 8, context.iohgatp, big_endian_);
    store(at + 16, context.ta, big_endian_);
    store(at + 24, context.fsc, big_endian_);
    store(at, context.tc, big_endian_);
  }
  std::uint64_t process_slot(PdtpMode mode, std::uint64_t root, Pasid process) {
    std::uint64_t page = root;
    for (unsigned level = static_cast<unsigned>(mode) - 1; level > 0; --level) {
      page = next_table(directory_order(process_big_endian_),
                        (page << kPageShift) + Pdi::index(level, process.value) * 8);
    }
    return (page << kPageShift) + Pdi::index(0, process.value) * sizeof(ProcessContext);
  }
  void set_process(PdtpMode mode, std::uint64_t root, Pasid process,
                   const ProcessContext& context) {
    const std::uint64_t at = process_slot(mode, root, process);
    store(at + 8, context.fsc, process_big_endian_);
    store(at, context.ta, process_big_endian_);
  }
  static ProcessContext process_context(FirstStageMode mode, std::uint64_t root,
                                        std::uint64_t more = 0, std::uint32_t pscid = kPscid) {
    return {ProcessContext::Ta::V::make(1) | ProcessContext::Ta::Pscid::make(pscid) | more,
            Fsc::make(mode, root)};
  }

  // ---- page tables
  /// Where the entry that maps `iova` at `level` lies; makes the tables on the way.
  std::uint64_t pte_slot(std::uint64_t root, const Scheme& scheme, std::uint64_t iova,
                         unsigned level = 0) {
    std::uint64_t page = root;
    for (unsigned i = scheme.levels - 1U;; --i) {
      const std::uint64_t at = (page << kPageShift) + scheme.offset(i, iova);
      if (i == level) return at;
      page = next_table(scheme, at);
    }
  }
  std::uint64_t pte_slot(std::uint64_t root, unsigned levels, std::uint64_t iova,
                         unsigned level = 0) {
    return pte_slot(root, Scheme{static_cast<std::uint8_t>(levels), 0}, iova, level);
  }
  void map(std::uint64_t root, const Scheme& scheme, std::uint64_t iova, std::uint64_t ppn,
           std::uint64_t flags = kLeaf, unsigned level = 0) {
    store_entry(scheme, pte_slot(root, scheme, iova, level), Pte::Ppn::make(ppn) | flags);
  }
  void map(std::uint64_t root, unsigned levels, std::uint64_t iova, std::uint64_t ppn,
           std::uint64_t flags = kLeaf, unsigned level = 0) {
    store(pte_slot(root, levels, iova, level), Pte::Ppn::make(ppn) | flags);
  }

  /// 1LVL; kDevice has ATS, PRI and a PD8 directory in which kPasid has an Sv39 table `root_`.
  void start(std::uint64_t more_tc = 0, std::uint64_t more_ta = 0) {
    enable_queues();
    set_ddtp(Ddtp::ModeValue::k1Lvl);
    pdt_root_ = allocate_page();
    root_ = allocate_page();
    using Tc = DeviceContext::Tc;
    context_.tc =
        Tc::V::make(1) | Tc::EnAts::make(1) | Tc::EnPri::make(1) | Tc::Pdtv::make(1) | more_tc;
    context_.fsc = Fsc::make(PdtpMode::kPd8, pdt_root_);
    set_device(kDevice, context_);
    set_process(PdtpMode::kPd8, pdt_root_, kPasid,
                process_context(FirstStageMode::kSv39, root_, more_ta));
  }
  Result<Translation, Cause> translate(std::uint64_t iova, Access access = Access::kRead,
                                       bool privileged = false) {
    return port_->translate({kPasid, privileged}, Iova{iova}, access);
  }
  Cause cause_of(const Result<Translation, Cause>& result) {
    EXPECT_FALSE(result.has_value());
    return result ? Cause{} : result.error();
  }

  const bool extended_;              ///< the format of device contexts
  bool big_endian_ = false;          ///< fctl.BE
  bool process_big_endian_ = false;  ///< tc.SBE: of process directories
  Mapping host_;
  memory::Memory memory_;
  std::uint64_t ram_;
  FakeDevice device_;
  std::array<std::atomic<int>, 4> interrupts_{};
  std::unique_ptr<Iommu> iommu_;
  std::unique_ptr<Port> port_;
  std::uint64_t command_ring_ = 0;
  std::uint64_t fault_ring_ = 0;
  std::uint64_t page_ring_ = 0;
  std::uint64_t ddt_root_ = 0;
  unsigned ddt_levels_ = 0;
  std::uint64_t pdt_root_ = 0;
  std::uint64_t root_ = 0;
  ExtendedDeviceContext context_;

 private:
  static Scheme directory_order(bool big_endian) {
    Scheme scheme;
    scheme.big_endian = big_endian;
    return scheme;
  }
  /// The table that the entry points to, of a directory or of a page table.
  std::uint64_t next_table(const Scheme& scheme, std::uint64_t entry_at) {
    std::uint64_t entry = load_entry(scheme, entry_at);
    if (DirectoryEntry::V::get(entry) == 0) {
      entry = DirectoryEntry::make(allocate_page());
      store_entry(scheme, entry_at, entry);
    }
    return DirectoryEntry::Ppn::get(entry);
  }
};

}  // namespace tandem::iommu::detail
