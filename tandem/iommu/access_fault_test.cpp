// SPDX-License-Identifier: Apache-2.0
// Every read of a translation is made to fail alone, by memory that is not there and by poison, and
// the fault is compared with what the specification says of that read.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

/// In place of a page of RAM: nothing answers.
class Nobody final : public memory::IoRegion {
 public:
  memory::Outcome read(std::uint64_t, std::span<std::byte>) override {
    return {0, memory::Fault::kRefused};
  }
  memory::Outcome write(std::uint64_t, std::span<const std::byte>) override {
    return {0, memory::Fault::kRefused};
  }
};

/// What a transaction asks, and how its faults are called.
struct Kind {
  const char* name;
  TransactionType type;
  Access access;
  Cause access_fault;
};
constexpr Kind kKinds[] = {
    {"Read", TransactionType::kUntranslatedRead, Access::kRead, Cause::kReadAccessFault},
    {"Write", TransactionType::kUntranslatedWrite, Access::kWrite, Cause::kWriteAccessFault},
    {"Ats", TransactionType::kAtsTranslationRequest, Access::kRead, Cause::kReadAccessFault},
    {"Execute", TransactionType::kUntranslatedExecute, Access::kExecute,
     Cause::kInstructionAccessFault},
};

/// A request of process kPasid through 3LVL, PD20, Sv39 and Sv39x4, with each table and each page
/// of the guest in a gigabyte of its own: no two reads are of one entry.
class AccessFaults : public Board, public testing::WithParamInterface<Kind> {
 protected:
  static constexpr std::uint64_t kAt = 0x12'3456'7000;
  static constexpr std::uint64_t kInterruptFile = std::uint64_t{300} << 30;
  static constexpr Scheme kFirst{3, 0};
  static constexpr Scheme kSecond{3, 2};
  static constexpr std::uint64_t kFlags = kLeaf | Pte::X::kMask;

  /// A read, and the causes of its failure.
  struct Read {
    std::uint64_t address;
    Cause missing;
    Cause poisoned;
  };

  AccessFaults() : Board(kAllCapabilities) {}

  /// Makes the world and notes what a translation of kAt to guest address `target` reads.
  void make(std::uint64_t target) {
    enable_queues();
    set_ddtp(Ddtp::ModeValue::k3Lvl);
    guest_root_ = allocate_pages_aligned(4 * kPageBytes);
    for (unsigned level = 2; level > 0; --level) {
      note(directory_entry(level), Cause::kDdtLoadFault, Cause::kDdtCorrupt);
    }
    const std::uint64_t slot = device_slot(kDevice);
    for (std::uint64_t word = 0; word < sizeof(ExtendedDeviceContext) / 8; ++word) {
      note(slot + word * 8, Cause::kDdtLoadFault, Cause::kDdtCorrupt);
    }

    // The process directory, from the root on.
    const std::uint64_t pdt = allocate_guest_page();
    std::uint64_t guest = pdt;
    for (unsigned level = 2; level > 0; --level) {
      const std::uint64_t entry = guest + Pdi::index(level, kPasid.value) * 8;
      const std::uint64_t next = allocate_guest_page();
      store(host_of(entry), DirectoryEntry::make(next >> kPageShift));
      note_guest_read(entry, 1, Cause::kPdtLoadFault, Cause::kPdtCorrupt);
      guest = next;
    }
    const std::uint64_t root = allocate_guest_page();
    const std::uint64_t process = guest + Pdi::index(0, kPasid.value) * sizeof(ProcessContext);
    const ProcessContext context = process_context(FirstStageMode::kSv39, root >> kPageShift,
                                                   ProcessContext::Ta::Ens::make(1));
    store(host_of(process), context.ta);
    store(host_of(process) + 8, context.fsc);
    note_guest_read(process, 2, Cause::kPdtLoadFault, Cause::kPdtCorrupt);

    // The first stage.
    guest = root;
    for (unsigned level = 2;; --level) {
      const std::uint64_t entry = guest + kFirst.offset(level, kAt);
      note_guest_read(entry, 1, GetParam().access_fault, Cause::kPageTableCorrupt);
      if (level == 0) {
        store(host_of(entry), Pte::Ppn::make(target >> kPageShift) | kFlags);
        break;
      }
      guest = allocate_guest_page();
      store(host_of(entry), Pte::Ppn::make(guest >> kPageShift) | Pte::V::kMask);
    }

    using Context = ExtendedDeviceContext;
    context_.tc =
        Context::Tc::V::make(1) | Context::Tc::EnAts::make(1) | Context::Tc::Pdtv::make(1);
    context_.iohgatp = Context::Iohgatp::make(SecondStageMode::kSv39x4, guest_root_, 0);
    context_.fsc = Fsc::make(PdtpMode::kPd20, pdt >> kPageShift);
    const std::uint64_t table = allocate_page();
    store(table << kPageShift, MsiPte::basic(allocate_page()).words[0]);
    context_.msiptp = Context::Msiptp::Mode::make(Context::Msiptp::kFlat) | table;
    context_.msi_addr_pattern = kInterruptFile >> kPageShift;
    set_device(kDevice, context_);
    if (target == kInterruptFile) {
      note(table << kPageShift, Cause::kMsiPteLoadFault, Cause::kMsiPtCorrupt);
      note((table << kPageShift) + 8, Cause::kMsiPteLoadFault, Cause::kMsiPtCorrupt);
    } else {
      map(guest_root_, kSecond, target, allocate_page(), kFlags);
      note_second_stage(target, GetParam().access_fault, Cause::kPageTableCorrupt);
    }
  }

  std::uint64_t allocate_guest_page() {
    const std::uint64_t guest = next_guest_ += std::uint64_t{1} << 30;
    map(guest_root_, kSecond, guest, allocate_page(), kFlags);
    return guest;
  }
  std::uint64_t host_of(std::uint64_t guest) {
    const std::uint64_t page = Pte::Ppn::get(load(pte_slot(guest_root_, kSecond, guest)));
    return page << kPageShift | (guest & (kPageBytes - 1));
  }
  std::uint64_t directory_entry(unsigned level) {
    std::uint64_t page = ddt_root_;
    (void)device_slot(kDevice);
    for (unsigned above = 2; above > level; --above) {
      page =
          DirectoryEntry::Ppn::get(load((page << kPageShift) + device_index(above, kDevice) * 8));
    }
    return (page << kPageShift) + device_index(level, kDevice) * 8;
  }

  void note(std::uint64_t address, Cause missing, Cause poisoned) {
    reads_.push_back({address, missing, poisoned});
  }
  void note_second_stage(std::uint64_t guest, Cause missing, Cause poisoned) {
    for (int level = 2; level >= 0; --level) {
      note(pte_slot(guest_root_, kSecond, guest, static_cast<unsigned>(level)), missing, poisoned);
    }
  }
  void note_guest_read(std::uint64_t guest, std::uint64_t words, Cause missing, Cause poisoned) {
    note_second_stage(guest, missing, poisoned);
    for (std::uint64_t word = 0; word < words; ++word)
      note(host_of(guest) + word * 8, missing, poisoned);
  }

  /// Makes the request with nothing cached. Returns: whether it was granted.
  bool request() {
    forget_contexts();
    EXPECT_TRUE(idle());
    const Requester requester{kPasid, false};
    if (GetParam().type != TransactionType::kAtsTranslationRequest) {
      return port_->translate(requester, Iova{kAt}, GetParam().access).has_value();
    }
    completion_ = port_->ats_translate(requester, Iova{kAt}, /*no_write=*/true);
    return completion_.status == AtsCompletion::Status::kSuccess;
  }
  void expect_fault(Cause cause) {
    EXPECT_FALSE(request());
    const auto faults = take_faults();
    ASSERT_EQ(faults.size(), 1U);
    EXPECT_EQ(faults[0].cause(), cause);
    EXPECT_EQ(faults[0].type(), GetParam().type);
    EXPECT_EQ(faults[0].device_id(), kDevice.value);
    EXPECT_EQ(faults[0].process_id(), kPasid.value);
    EXPECT_FALSE(faults[0].privileged());
    EXPECT_EQ(faults[0].iotval, kAt);
    EXPECT_EQ(faults[0].iotval2, 0U);
    if (GetParam().type != TransactionType::kAtsTranslationRequest) return;
    EXPECT_EQ(completion_.status, cause == Cause::kDdtLoadFault
                                      ? AtsCompletion::Status::kUnsupportedRequest
                                      : AtsCompletion::Status::kCompleterAbort);
  }
  /// Calls `use` while nothing answers at the page of `address`.
  template <class Use>
  void without_page(std::uint64_t address, Use use) {
    const auto hole = memory_.add_io(memory::PhysAddr{address & ~(kPageBytes - 1)}, kPageBytes,
                                     std::make_shared<Nobody>(), 1);
    ASSERT_TRUE(hole.has_value());
    use();
    ASSERT_TRUE(memory_.remove(*hole).has_value());
  }

  /// Each of them in turn.
  void expect_all() {
    ASSERT_TRUE(request());
    for (std::size_t n = 0; n < reads_.size(); ++n) {
      SCOPED_TRACE("read " + std::to_string(n));
      const memory::PhysAddr at{reads_[n].address};
      ASSERT_TRUE(memory_.set_poison(at, 8));
      expect_fault(reads_[n].poisoned);
      ASSERT_TRUE(memory_.clear_poison(at, 8));
      // What is read first of a page that is not there says why; roots are read several times.
      const Read& first = *std::ranges::find(reads_, at.value / kPageBytes, page_of);
      without_page(at.value, [&] { expect_fault(first.missing); });
      EXPECT_TRUE(request());
    }
    // And no others are made.
    for (std::uint64_t page = kRamBase; page < ram_; page += kPageBytes) {
      if (std::ranges::find(reads_, page / kPageBytes, page_of) != reads_.end()) continue;
      if (page == command_ring_ || page == fault_ring_) continue;
      without_page(page, [&] { EXPECT_TRUE(request()) << std::hex << page; });
    }
  }

  static std::uint64_t page_of(const Read& read) { return read.address / kPageBytes; }

  std::vector<Read> reads_;
  AtsCompletion completion_;
  std::uint64_t guest_root_ = 0;
  std::uint64_t next_guest_ = 0;
};

// [iommu §3.3] [iommu §3.3.1] [iommu §3.3.2] [iommu §8.4]
TEST_P(AccessFaults, OfEachReadOfANestedTranslationAreReportedAsItsOwn) {
  const std::uint64_t target = std::uint64_t{200} << 30;
  make(target);
  EXPECT_EQ(reads_.size(), 2U + 8 + (3 + 1) * 2 + (3 + 2) + (3 + 1) * 3 + 3);
  expect_all();
}

/// No interrupt file is executed.
class InterruptFileAccessFaults : public AccessFaults {};

// [iommu §3.3.3] [iommu §8.4]
TEST_P(InterruptFileAccessFaults, OfEachReadOnTheWayAreReportedAsItsOwn) {
  make(kInterruptFile);
  EXPECT_EQ(reads_.size(), 2U + 8 + (3 + 1) * 2 + (3 + 2) + (3 + 1) * 3 + 2);
  expect_all();
}

std::string name_of(const testing::TestParamInfo<Kind>& kind) { return kind.param.name; }
INSTANTIATE_TEST_SUITE_P(OfA, AccessFaults, testing::ValuesIn(kKinds), name_of);
INSTANTIATE_TEST_SUITE_P(OfA, InterruptFileAccessFaults,
                         testing::ValuesIn(std::span(kKinds).first<3>()), name_of);

/// The queues' own accesses to memory.
class QueueAccessFaults : public Board {
 protected:
  QueueAccessFaults() { start(); }
};

// [iommu §4.1] [iommu §6.15]
TEST_F(QueueAccessFaults, OfEachWordOfACommandStopTheQueueThere) {
  for (const std::uint64_t word : {0U, 1U}) {
    const auto tail = read(reg::kCqt);
    const memory::PhysAddr at{command_ring_ + tail * sizeof(Command) + word * 8};
    store(at.value - word * 8, iofence_c({}).words[0]);
    store(at.value - word * 8 + 8, iofence_c({}).words[1]);
    ASSERT_TRUE(memory_.set_poison(at, 8));
    write(reg::kCqt, (tail + 1) % (1U << kLog2Queue));
    EXPECT_EQ(error_bits(), Cqcsr::Cqmf::kMask);
    EXPECT_EQ(read(reg::kCqh), tail) << "the command is not fetched";
    ASSERT_TRUE(memory_.clear_poison(at, 8));
    clear_errors();
    EXPECT_TRUE(idle());
  }
}

// [iommu §3.4]
TEST_F(QueueAccessFaults, OfTheUpdateOfALeafAreOfTheOriginalAccess) {
  context_.tc |= DeviceContext::Tc::Sade::kMask;
  set_device(kDevice, context_);
  const std::uint64_t page = allocate_page();
  map(root_, 3, 0x7000, page, kLeaf & ~Pte::D::kMask);
  const std::uint64_t slot = pte_slot(root_, 3, 0x7000);
  // What can be read and not be written.
  const std::uint64_t table = slot & ~(kPageBytes - 1);
  const auto view = memory_.add_host_ram(
      memory::PhysAddr{table}, host_.bytes().subspan(table - kRamBase, kPageBytes), false, 1);
  ASSERT_TRUE(view.has_value());
  EXPECT_TRUE(translate(0x7000).has_value());
  EXPECT_EQ(cause_of(translate(0x7000, Access::kWrite)), Cause::kWriteAccessFault);
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].type(), TransactionType::kUntranslatedWrite);
  EXPECT_EQ(faults[0].iotval2, 0U);
  ASSERT_TRUE(memory_.remove(*view).has_value());
  EXPECT_TRUE(translate(0x7000, Access::kWrite).has_value());
  EXPECT_EQ(load(slot) & Pte::D::kMask, Pte::D::kMask);
}

}  // namespace
}  // namespace tandem::iommu::detail
