// SPDX-License-Identifier: Apache-2.0
// A board to build on: memory, an IOMMU and a DMA device (edu.hpp), and beside them what software
// does, through memory alone: it finds the device, places its BAR, enables PASID, ATS and page
// requests, gives process 5 an empty address space, and serves the page faults of a DMA.
#include "tandem/pcie/board.hpp"

#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "edu.hpp"
#include "tandem/iommu/spec.hpp"
#include "tandem/pcie/spec.hpp"

namespace {

namespace iommu = tandem::iommu;
namespace pcie = tandem::pcie;
namespace config = tandem::pcie::config;
using iommu::Pte;
using tandem::memory::PhysAddr;

constexpr pcie::Pasid kProcess{5};

/// What a guest's kernel would do. It knows the board's addresses and nothing else of it.
class Software {
 public:
  explicit Software(pcie::Board& board) : board_(board) {}

  template <class T>
  T load(PhysAddr at) {
    T value{};
    (void)board_.memory().read(at, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  template <class T>
  void store(PhysAddr at, std::type_identity_t<T> value) {
    (void)board_.memory().write(at, std::as_bytes(std::span(&value, 1)));
  }
  PhysAddr allocate_page() { return std::exchange(next_page_, next_page_.plus(4096)); }

  /// The first function with `vendor_id`.
  bool find(std::uint16_t vendor_id, pcie::Bdf& found) {
    for (std::uint8_t device = 0; device < 32; ++device) {
      const pcie::Bdf slot{0, device, 0};
      if (load<std::uint16_t>(board_.config_address(slot, config::kVendorId)) != vendor_id)
        continue;
      found = slot;
      return true;
    }
    return false;
  }
  /// Places BAR 0 and enables what the capabilities offer.
  void enable(pcie::Bdf slot, PhysAddr bar) {
    const auto at = [&](std::uint32_t offset) { return board_.config_address(slot, offset); };
    store<std::uint32_t>(at(config::kBar0), static_cast<std::uint32_t>(bar.value));
    store<std::uint32_t>(at(config::kBar0 + 4), static_cast<std::uint32_t>(bar.value >> 32));
    for (std::uint32_t next = config::kExtendedCapabilities; next != 0;) {
      using config::ExtendedCapability;
      const auto header = load<std::uint32_t>(at(next));
      switch (ExtendedCapability::Id::get(header)) {
        case ExtendedCapability::kPasid:
          store<std::uint16_t>(at(next + config::kPasidControl),
                               config::PasidControl::Enable::kMask);
          break;
        case ExtendedCapability::kAts:
          store<std::uint16_t>(at(next + config::kAtsControl), config::AtsControl::Enable::kMask);
          break;
        case ExtendedCapability::kPageRequest:
          store<std::uint32_t>(at(next + config::kPageRequestAllocation), 32);
          store<std::uint16_t>(at(next + config::kPageRequestControl),
                               config::PageRequestControl::Enable::kMask);
          break;
      }
      next = static_cast<std::uint32_t>(ExtendedCapability::Next::get(header));
    }
    store<std::uint16_t>(at(config::kCommand), config::Command::MemorySpaceEnable::kMask |
                                                   config::Command::BusMasterEnable::kMask);
  }

  /// One device, with a process directory of one page that holds kProcess.
  void start_iommu(pcie::Bdf slot) {
    using Tc = iommu::DeviceContext::Tc;
    namespace reg = iommu::reg;
    const PhysAddr devices = allocate_page(), processes = allocate_page();
    root_ = allocate_page();
    const PhysAddr process = processes.plus(kProcess.value * sizeof(iommu::ProcessContext));
    using Ta = iommu::ProcessContext::Ta;
    store<iommu::ProcessContext>(process,
                                 {Ta::V::make(1) | Ta::Pscid::make(kProcess.value),
                                  iommu::Fsc::make(iommu::FirstStageMode::kSv39, ppn(root_))});
    iommu::DeviceContext device;
    device.tc = Tc::V::make(1) | Tc::EnAts::make(1) | Tc::EnPri::make(1) | Tc::Prpr::make(1) |
                Tc::Pdtv::make(1);
    device.fsc = iommu::Fsc::make(iommu::PdtpMode::kPd8, ppn(processes));
    store<iommu::DeviceContext>(devices.plus(slot.id().value * sizeof device), device);
    commands_ = allocate_page();
    requests_ = allocate_page();
    set<std::uint64_t>(reg::kCqb, iommu::QueueBase::make(kLog2Entries, ppn(commands_)));
    set<std::uint64_t>(reg::kPqb, iommu::QueueBase::make(kLog2Entries, ppn(requests_)));
    set<std::uint32_t>(reg::kCqcsr, iommu::Cqcsr::Cqen::make(1));
    set<std::uint32_t>(reg::kPqcsr, iommu::Pqcsr::Pqen::make(1) | iommu::Pqcsr::Pie::make(1));
    set<std::uint64_t>(reg::kDdtp, iommu::Ddtp::make(iommu::Ddtp::ModeValue::k1Lvl, ppn(devices)));
    board_.iommu().on_interrupt([this](iommu::Iommu::Interrupt cause) {
      if (cause == iommu::Iommu::Interrupt::kPageRequestQueue) serve_page_requests();
    });
  }

  /// The page of process kProcess at `address`; a fresh one where there is none.
  PhysAddr page_of(std::uint64_t address) {
    PhysAddr table = root_;
    for (unsigned level = 2;; --level) {
      const PhysAddr entry = table.plus((address >> (12 + 9 * level) & 0x1ff) * 8);
      auto value = load<std::uint64_t>(entry);
      if (value == 0) {
        const std::uint64_t page = ppn(allocate_page());
        value = level != 0 ? Pte::make_pointer(page)
                           : Pte::V::make(1) | Pte::R::make(1) | Pte::W::make(1) | Pte::U::make(1) |
                                 Pte::A::make(1) | Pte::D::make(1) | Pte::Ppn::make(page);
        store<std::uint64_t>(entry, value);
      }
      table = PhysAddr{Pte::Ppn::get(value) << 12};
      if (level == 0) return table.plus(address & 0xfff);
    }
  }

  unsigned faults_served = 0;

 private:
  static constexpr unsigned kLog2Entries = 4;
  static std::uint64_t ppn(PhysAddr at) { return at.value >> 12; }
  template <class T>
  T get(std::uint32_t offset) {
    return load<T>(pcie::Board::Options().iommu_registers.plus(offset));
  }
  template <class T>
  void set(std::uint32_t offset, std::type_identity_t<T> value) {
    store<T>(pcie::Board::Options().iommu_registers.plus(offset), value);
  }

  void serve_page_requests() {
    namespace reg = iommu::reg;
    set<std::uint32_t>(reg::kIpsr, iommu::Ipsr::Pip::kMask);
    auto head = get<std::uint32_t>(reg::kPqh);
    while (head != get<std::uint32_t>(reg::kPqt)) {
      const auto request =
          load<iommu::PageRequestRecord>(requests_.plus(head * sizeof(iommu::PageRequestRecord)));
      head = (head + 1) % (1U << kLog2Entries);
      set<std::uint32_t>(reg::kPqh, head);
      std::printf("  software: a page for process %u at %#lx\n", request.process_id().value_or(0),
                  static_cast<unsigned long>(request.address()));
      (void)page_of(request.address());
      ++faults_served;
      const auto tail = get<std::uint32_t>(reg::kCqt);
      store<iommu::Command>(
          commands_.plus(tail * sizeof(iommu::Command)),
          iommu::ats_prgr(request.device_id(), request.process_id(), request.group(), 0));
      set<std::uint32_t>(reg::kCqt, (tail + 1) % (1U << kLog2Entries));
    }
  }

  pcie::Board& board_;
  PhysAddr next_page_ = pcie::Board::Options().ram;
  PhysAddr root_, commands_, requests_;
};

const char* name_of(pcie::Message::Kind kind) {
  constexpr const char* kNames[] = {
      "memory read",  "memory write",  "translation request",  "translation completion",
      "page request", "page response", "invalidation request", "invalidation completion"};
  return kNames[static_cast<std::size_t>(kind)];
}

}  // namespace

int main() {
  // ---- the board
  const auto board = pcie::Board::create().value();
  const auto edu = std::make_shared<Edu>();
  pcie::Endpoint::Options options;
  options.enabled = false;  // software does that
  options.identity.vendor_id = 0x1234;
  options.identity.device_id = 0x11e8;
  options.bars = {{4096, edu}};
  options.on_reset = [&] { edu->reset(); };
  pcie::Endpoint& endpoint = board->plug({0, 3, 0}, options).value();
  edu->connect(endpoint);
  endpoint.set_tap([](const pcie::Message& message) {
    std::printf("  %-22s pasid %d at %#lx\n", name_of(message.kind),
                message.pasid ? static_cast<int>(message.pasid->value) : -1,
                static_cast<unsigned long>(message.address.value));
  });

  // ---- software
  Software software(*board);
  pcie::Bdf slot;
  if (!software.find(0x1234, slot)) return 1;
  constexpr PhysAddr kBar{0x4000'0000};
  software.enable(slot, kBar);
  software.start_iommu(slot);
  const auto reg = [&](Edu::Register which) { return kBar.plus(which * 8); };
  std::printf("device %u: id %#lx\n", slot.device,
              static_cast<unsigned long>(software.load<std::uint64_t>(reg(Edu::kId))));

  constexpr std::uint64_t kFrom = 0x7000'0000, kTo = 0x7fff'f000;
  const std::string text = "an address of a process, a device, and nothing between";
  (void)board->memory().write(software.page_of(kFrom), std::as_bytes(std::span(text)));
  software.store<std::uint64_t>(reg(Edu::kPasid), kProcess.value);
  software.store<std::uint64_t>(reg(Edu::kFrom), kFrom);
  software.store<std::uint64_t>(reg(Edu::kTo), kTo);
  software.store<std::uint64_t>(reg(Edu::kLength), text.size());
  software.store<std::uint64_t>(reg(Edu::kStart), 1);

  std::string copied(text.size(), '?');
  (void)board->memory().read(software.page_of(kTo), std::as_writable_bytes(std::span(copied)));
  const auto status = software.load<std::uint64_t>(reg(Edu::kStatus));
  std::printf("status %lu after %u page faults: %s\n", static_cast<unsigned long>(status),
              software.faults_served, copied.c_str());

  // ---- after a reset the device may do nothing until software enables it again
  endpoint.reset();
  const auto gone =
      endpoint.space(kProcess).read({kFrom}, std::as_writable_bytes(std::span(copied)));
  std::printf("after the reset: %s\n", gone.ok() ? "still alive" : "disabled");
  return status == Edu::kDone && copied == text && software.faults_served == 1 && !gone.ok() ? 0
                                                                                             : 1;
}
