// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/base/check.hpp"
#include "tandem/base/mapping.hpp"
#include "tandem/iommu/iommu.hpp"
#include "tandem/pcie/pcie.hpp"
#include "tandem/pcie/spec.hpp"

namespace tandem::pcie::detail {

/// For tests: the offset of a capability in the first 256 bytes; 0 when it is not there.
inline std::uint32_t find_capability(Endpoint& endpoint, std::uint32_t id) {
  std::uint32_t at = endpoint.config_read(config::kCapabilitiesPointer, 1);
  while (at != 0 && endpoint.config_read(at, 1) != id) at = endpoint.config_read(at + 1, 1);
  return at;
}

/// For tests: memory, an IOMMU set up as its specification says, and a driver that serves page
/// requests on the thread they come from.
///
/// Thread safety: all calls, from any thread; `on_page_request` is set before accesses begin.
class TestBench {
 public:
  static constexpr DeviceId kDevice{5};
  static constexpr std::uint64_t kArena = 0x8000'0000;
  static constexpr std::size_t kArenaBytes = 8 << 20;
  enum class Permission { kRead, kReadWrite, kReadExecute, kSupervisor };

  /// What the driver does about a page request; by default it refuses.
  using Service = std::function<iommu::PageResponse::Code(const iommu::PageRequestRecord&)>;
  Service on_page_request = [](const iommu::PageRequestRecord&) {
    return iommu::PageResponse::Code::kInvalidRequest;
  };
  std::atomic<bool> answers{true};  ///< whether the driver answers at all
  std::atomic<int> stop_markers{0};

  explicit TestBench(
      const iommu::Iommu::Options& options = {.invalidation_timeout = std::chrono::seconds(20)})
      : arena_(std::move(*Mapping::anonymous(kArenaBytes))), iommu(memory, options) {
    using iommu::Ddtp;
    using iommu::DeviceContext;
    using iommu::Fsc;
    namespace reg = iommu::reg;
    TANDEM_CHECK(memory.add_host_ram({kArena}, arena_.bytes()));
    const std::uint64_t ddt = allocate();
    pdt_ = allocate();
    const bool extended = iommu::Capabilities::MsiFlat::get(options.capabilities) != 0;
    dc_ = ddt +
          kDevice.value * (extended ? sizeof(iommu::ExtendedDeviceContext) : sizeof(DeviceContext));
    poke(dc_ + 24, Fsc::make(iommu::PdtpMode::kPd8, pdt_ >> 12));
    using Tc = DeviceContext::Tc;
    poke(dc_, Tc::V::make(1) | Tc::EnAts::make(1) | Tc::EnPri::make(1) | Tc::Pdtv::make(1) |
                  Tc::Prpr::make(1));
    cq_ = allocate();
    pq_ = allocate();
    fq_ = allocate();
    iommu.on_interrupt([this](iommu::Iommu::Interrupt which) {
      if (which == iommu::Iommu::Interrupt::kPageRequestQueue) serve();
    });
    iommu.mmio_write(reg::kCqb, iommu::QueueBase::make(kLog2Queue, cq_ >> 12), 8);
    iommu.mmio_write(reg::kFqb, iommu::QueueBase::make(kLog2Faults, fq_ >> 12), 8);
    iommu.mmio_write(reg::kPqb, iommu::QueueBase::make(kLog2Queue, pq_ >> 12), 8);
    iommu.mmio_write(reg::kCqcsr, iommu::Cqcsr::Cqen::make(1), 4);
    iommu.mmio_write(reg::kFqcsr, iommu::Fqcsr::Fqen::make(1), 4);
    iommu.mmio_write(reg::kPqcsr, iommu::Pqcsr::Pqen::make(1) | iommu::Pqcsr::Pie::make(1), 4);
    iommu.mmio_write(reg::kDdtp, Ddtp::make(Ddtp::ModeValue::k1Lvl, ddt >> 12), 8);
  }

  /// Puts the device into a guest: a second stage that maps the arena to itself, and once more at
  /// kGuestArena, which is no physical address.
  static constexpr std::uint64_t kGuestArena = 0x1'0000'0000;
  static constexpr std::uint32_t kGscid = 3;
  void enter_guest(bool t2gpa = true) {
    using iommu::DeviceContext;
    const std::uint64_t root = (allocate(7) + 0x3fff) & ~std::uint64_t{0x3fff};
    guest_entry_ = root + (kGuestArena >> 30) * 8;
    poke(root + (kArena >> 30) * 8, kGuestLeaf);
    poke(guest_entry_, kGuestLeaf);
    poke(dc_ + 8,
         DeviceContext::Iohgatp::make(iommu::SecondStageMode::kSv39x4, root >> 12, kGscid));
    if (t2gpa) poke(dc_, peek(dc_) | DeviceContext::Tc::T2gpa::kMask);
    command({iommu::iodir_inval_ddt(kDevice.value)});
  }
  /// Gives the guest one interrupt file, at kInterruptFile, which is what `entry` says.
  static constexpr std::uint64_t kInterruptFile = 0x2800'0000;
  void set_interrupt_file(const iommu::MsiPte& entry) {
    using Msiptp = iommu::ExtendedDeviceContext::Msiptp;
    const std::uint64_t table = allocate();
    poke(table, entry.words[0]);
    poke(table + 8, entry.words[1]);
    poke(dc_ + 48, kInterruptFile >> 12);
    poke(dc_ + 32, Msiptp::make_flat(table >> 12));
    command({iommu::iodir_inval_ddt(kDevice.value)});
  }
  /// How many faults were recorded, and forgets them.
  std::size_t take_faults() {
    namespace reg = iommu::reg;
    const std::uint64_t head = iommu.mmio_read(reg::kFqh, 4), tail = iommu.mmio_read(reg::kFqt, 4);
    iommu.mmio_write(reg::kFqh, tail, 4);
    return (tail - head) % (1u << kLog2Faults);
  }

  /// Whether the guest has its memory at kGuestArena. Tells only the IOMMU.
  void set_guest_memory(bool present) {
    poke(guest_entry_, present ? kGuestLeaf : 0);
    command({iommu::iotinval_gvma(kGscid), iommu::iofence_c({})});
  }

  std::unique_ptr<Endpoint> endpoint(Endpoint::Options options = {}) {
    auto made = Endpoint::create(iommu, kDevice, options);
    TANDEM_CHECK(made);
    return std::move(*made);
  }

  /// A zeroed page (or more) of the arena.
  std::uint64_t allocate(std::size_t pages = 1) {
    const std::uint64_t at = next_.fetch_add(pages * kPageSize);
    TANDEM_CHECK(at + pages * kPageSize <= kArena + kArenaBytes);
    return at;
  }
  std::byte* host(std::uint64_t physical) const { return arena_.data() + (physical - kArena); }

  /// Gives `pasid` an empty Sv48 address space. `supervisor`: one that takes privileged requests.
  void bind(Pasid pasid, bool supervisor = false) {
    const std::uint64_t root = allocate();
    {
      const std::scoped_lock lock(tables_);
      roots_[pasid.value] = root;
    }
    const std::uint64_t pc = pdt_ + pasid.value * sizeof(iommu::ProcessContext);
    poke(pc + 8, iommu::Fsc::make(iommu::FirstStageMode::kSv48, root >> 12));
    using Ta = iommu::ProcessContext::Ta;
    poke(pc, Ta::V::make(1) | Ta::Ens::make(supervisor) | Ta::Pscid::make(pasid.value + 1));
  }

  /// Maps one page of 4 KiB << 9·level.
  void map(Pasid pasid, std::uint64_t at, std::uint64_t physical,
           Permission permission = Permission::kReadWrite, unsigned level = 0) {
    using iommu::Pte;
    const bool supervisor = permission == Permission::kSupervisor;
    poke(entry(pasid, at, level),
         Pte::V::make(1) | Pte::R::make(1) |
             Pte::W::make(permission == Permission::kReadWrite || supervisor) |
             Pte::X::make(permission == Permission::kReadExecute) | Pte::U::make(!supervisor) |
             Pte::A::make(1) | Pte::D::make(1) | Pte::Ppn::make(physical >> 12));
  }
  /// Unmaps a page and waits until the device is through with it.
  /// Returns: whether the device completed the invalidation in time.
  bool unmap(Pasid pasid, std::uint64_t at, unsigned level = 0) {
    poke(entry(pasid, at, level), 0);
    return invalidate(pasid, at, std::uint64_t{kPageSize} << (9 * level));
  }
  bool invalidate(Pasid pasid, std::uint64_t at, std::uint64_t size_bytes, bool global = false) {
    return command({iommu::iotinval_vma(std::nullopt, pasid.value + 1),
                    iommu::ats_inval(kDevice.value, pasid.value, at, size_bytes, global),
                    iommu::iofence_c({.order_reads = true, .order_writes = true})});
  }

  /// Runs commands; false when a fence reports an ATS time-out (which is cleared).
  bool command(std::initializer_list<iommu::Command> commands) {
    namespace reg = iommu::reg;
    const std::scoped_lock lock(commands_);
    for (const iommu::Command& one : commands) {
      std::memcpy(host(cq_) + cq_tail_ * sizeof one, &one, sizeof one);
      cq_tail_ = (cq_tail_ + 1) % (1u << kLog2Queue);
    }
    iommu.mmio_write(reg::kCqt, cq_tail_, 4);
    std::uint64_t status = iommu.mmio_read(reg::kCqcsr, 4);
    while (iommu::Cqcsr::CmdTo::get(status) == 0 && iommu.mmio_read(reg::kCqh, 4) != cq_tail_) {
      std::this_thread::yield();
      status = iommu.mmio_read(reg::kCqcsr, 4);
    }
    TANDEM_CHECK(iommu::Cqcsr::Cqmf::get(status) == 0 && iommu::Cqcsr::CmdIll::get(status) == 0);
    if (iommu::Cqcsr::CmdTo::get(status) == 0) return true;
    iommu.mmio_write(reg::kCqcsr, iommu::Cqcsr::Cqen::make(1) | iommu::Cqcsr::CmdTo::kMask, 4);
    TANDEM_CHECK(iommu.mmio_read(reg::kCqh, 4) == cq_tail_);
    return false;
  }

 private:
  static constexpr unsigned kLog2Queue = 7;
  static constexpr unsigned kLog2Faults = 6;
  static constexpr std::uint64_t kGuestLeaf = iommu::Pte::V::make(1) | iommu::Pte::R::make(1) |
                                              iommu::Pte::W::make(1) | iommu::Pte::U::make(1) |
                                              iommu::Pte::A::make(1) | iommu::Pte::D::make(1) |
                                              iommu::Pte::Ppn::make(kArena >> 12);
  Mapping arena_;

 public:
  memory::Memory memory;
  iommu::Iommu iommu;

 private:
  void poke(std::uint64_t physical, std::uint64_t value) {
    std::atomic_ref<std::uint64_t>(*reinterpret_cast<std::uint64_t*>(host(physical)))
        .store(value, std::memory_order_release);
  }
  std::uint64_t peek(std::uint64_t physical) const {
    return std::atomic_ref<std::uint64_t>(*reinterpret_cast<std::uint64_t*>(host(physical)))
        .load(std::memory_order_acquire);
  }

  /// The physical address of a page-table entry, with the tables above it made as needed.
  std::uint64_t entry(Pasid pasid, std::uint64_t at, unsigned level) {
    const std::scoped_lock lock(tables_);
    std::uint64_t table = roots_.at(pasid.value);
    for (unsigned l = 3; l > level; --l) {
      const std::uint64_t slot = table + ((at >> (12 + 9 * l)) & 511) * 8;
      if (peek(slot) == 0) poke(slot, iommu::Pte::make_pointer(allocate() >> 12));
      table = iommu::Pte::Ppn::get(peek(slot)) << 12;
    }
    return table + ((at >> (12 + 9 * level)) & 511) * 8;
  }

  void serve() {
    namespace reg = iommu::reg;
    iommu.mmio_write(reg::kIpsr, iommu::Ipsr::Pip::kMask, 4);
    for (;;) {
      iommu::PageRequestRecord record;
      {
        const std::scoped_lock lock(requests_);
        const std::uint64_t head = iommu.mmio_read(reg::kPqh, 4);
        if (head == iommu.mmio_read(reg::kPqt, 4)) return;
        const std::uint64_t at = pq_ + head * sizeof record;
        record.head = peek(at);
        record.payload = peek(at + 8);
        iommu.mmio_write(reg::kPqh, (head + 1) % (1u << kLog2Queue), 4);
      }
      if (record.is_stop_marker()) {
        ++stop_markers;
        continue;
      }
      if (!answers) continue;
      auto code = on_page_request(record);
      {
        const std::scoped_lock lock(requests_);
        auto& worst = groups_[record.group()];
        worst = std::max(worst, code);
        if (!record.last()) continue;
        code = worst;
        groups_.erase(record.group());
      }
      command({iommu::ats_prgr(record.device_id(), record.process_id(), record.group(),
                               static_cast<std::uint8_t>(code))});
    }
  }

  std::atomic<std::uint64_t> next_{kArena};
  std::mutex tables_, commands_, requests_;
  std::map<std::uint32_t, std::uint64_t> roots_;
  std::map<std::uint16_t, iommu::PageResponse::Code> groups_;  // the worst answer so far
  std::uint64_t dc_ = 0, guest_entry_ = 0, pdt_ = 0, cq_ = 0, pq_ = 0, fq_ = 0;
  std::uint32_t cq_tail_ = 0;
};

}  // namespace tandem::pcie::detail
