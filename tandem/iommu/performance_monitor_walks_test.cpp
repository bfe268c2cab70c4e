// SPDX-License-Identifier: Apache-2.0
// What the performance monitor counts of the way to a translation.
#include <gtest/gtest.h>

#include "tandem/iommu/detail/performance_monitor.hpp"
#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

class WalkEvents : public Board {
 protected:
  WalkEvents() : Board(kAllCapabilities) {}

  static std::uint64_t selects(HpmEvent event, std::uint64_t filter = 0) {
    return Iohpmevt::EventId::make(static_cast<std::uint64_t>(event)) | filter;
  }
  static std::uint32_t selector(unsigned n) { return reg::kIohpmevt1 + (n - 1) * 8; }
  std::uint64_t count(unsigned n) { return read(reg::kIohpmctr1 + (n - 1) * 8, 8); }
  /// Counters 4 to 8 count the event of their number.
  void select_walks() {
    for (unsigned n = 4; n <= 8; ++n) write(selector(n), selects(static_cast<HpmEvent>(n)), 8);
  }
  void expect_walks(unsigned misses, unsigned ddt, unsigned pdt, unsigned first, unsigned second) {
    EXPECT_EQ(count(4), misses);
    EXPECT_EQ(count(5), ddt);
    EXPECT_EQ(count(6), pdt);
    EXPECT_EQ(count(7), first);
    EXPECT_EQ(count(8), second);
  }
};

// [iommu §6.23] [iommu Glossary] "Walk": each load of an entry is one
TEST_F(WalkEvents, AMissCountsTheEntriesItLoads) {
  start();
  map(root_, 3, 0x7000, 0x12345);
  select_walks();
  write(selector(14),
        selects(HpmEvent::kTlbMiss, Iohpmevt::Idt::make(1) | Iohpmevt::PvPscv::make(1) |
                                        Iohpmevt::PidPscid::make(kPscid)),
        8);
  EXPECT_TRUE(translate(0x7000).has_value());
  expect_walks(1, 1, 1, 3, 0);
  EXPECT_EQ(count(14), 1U);
  EXPECT_TRUE(translate(0x7000).has_value());
  expect_walks(1, 1, 1, 3, 0);
  EXPECT_FALSE(port_->translate({Pasid{9}, false}, Iova{0x7000}, Access::kRead).has_value());
  expect_walks(1, 1, 2, 3, 0);  // the process context is not valid
  EXPECT_FALSE(translate(std::uint64_t{1} << 30).has_value());
  expect_walks(2, 1, 2, 4, 0);  // nor is an entry of the root
}

// [iommu §6.23] [iommu Glossary] "Walk"
TEST_F(WalkEvents, TheUpdateOfALeafLoadsItOnceMore) {
  start(DeviceContext::Tc::Sade::kMask);
  map(root_, 3, 0x7000, 0x12345, kLeaf & ~Pte::D::kMask);
  select_walks();
  EXPECT_TRUE(translate(0x7000, Access::kWrite).has_value());
  expect_walks(1, 1, 1, 4, 0);
}

// [iommu §3.3] step 11, before it matters whether there is a process directory; [iommu §6.23]
TEST_F(WalkEvents, WithDpeTheProcessIs0AlsoWithoutAProcessDirectory) {
  start(DeviceContext::Tc::Dpe::kMask);
  context_.fsc = Fsc::make(PdtpMode::kBare, 0);
  set_device(kDevice, context_);
  const std::uint64_t of_process = Iohpmevt::PvPscv::make(1);
  write(selector(4), selects(HpmEvent::kTlbMiss, of_process), 8);
  write(selector(5), selects(HpmEvent::kTlbMiss, of_process | Iohpmevt::PidPscid::make(1)), 8);
  EXPECT_TRUE(port_->translate({}, Iova{0x7000}, Access::kRead).has_value());
  EXPECT_EQ(count(4), 1U);
  EXPECT_EQ(count(5), 0U);
}

/// A guest whose process directory and tables are mapped page by page, where they are.
class GuestWalkEvents : public WalkEvents {
 protected:
  static constexpr std::uint32_t kGscid = 9;
  static constexpr std::uint64_t kIova = 0x7000;

  GuestWalkEvents() {
    enable_queues();
    set_ddtp(Ddtp::ModeValue::k3Lvl);
    const std::uint64_t guest_root = allocate_pages_aligned(16384);
    pdt_root_ = allocate_page();
    root_ = allocate_page();
    map(root_, 3, kIova, allocate_page());
    context_.tc = DeviceContext::Tc::V::make(1) | DeviceContext::Tc::Pdtv::make(1);
    context_.iohgatp = DeviceContext::Iohgatp::make(SecondStageMode::kSv39x4, guest_root, kGscid);
    context_.fsc = Fsc::make(PdtpMode::kPd20, pdt_root_);
    set_device(kDevice, context_);
    set_process(PdtpMode::kPd20, pdt_root_, kPasid, process_context(FirstStageMode::kSv39, root_));
    const std::uint64_t end = ram_;
    for (std::uint64_t at = kRamBase; at < end; at += kPageBytes) {
      map(guest_root, scheme_of(SecondStageMode::kSv39x4), at, at >> kPageShift);
    }
    pdt_in_guest_ = pte_slot(guest_root, scheme_of(SecondStageMode::kSv39x4), pdt_root_ << 12);
    select_walks();
    write(selector(9),
          selects(HpmEvent::kSecondStageWalk, Iohpmevt::Idt::make(1) | Iohpmevt::DvGscv::make(1) |
                                                  Iohpmevt::DidGscid::make(kGscid)),
          8);
  }
  std::uint64_t pdt_in_guest_ = 0;
};

// [iommu §6.23] [iommu Glossary] "Walk"
TEST_F(GuestWalkEvents, EntriesThatFindOtherEntriesCount) {
  EXPECT_TRUE(translate(kIova).has_value());
  expect_walks(1, 3, 3, 3, 3 * (3 + 3 + 1));  // of both directories, three tables and the page
  EXPECT_EQ(count(9), count(8)) << "all of them are the guest's";
}

// [iommu §6.23]
TEST_F(GuestWalkEvents, WalksBeforeAProcessIsFoundAreTheGuestsToo) {
  store(pdt_in_guest_, 0);
  EXPECT_EQ(cause_of(translate(kIova)), Cause::kReadGuestPageFault);
  expect_walks(0, 3, 0, 0, 3);
  EXPECT_EQ(count(9), 3U);
}

// [iommu §6.23]
TEST_F(GuestWalkEvents, APageRequestLoadsItsDeviceContext) {
  PageRequest request;
  request.pasid = kPasid;
  port_->page_request(request);
  expect_walks(0, 3, 0, 0, 0);
}

}  // namespace
}  // namespace tandem::iommu::detail
