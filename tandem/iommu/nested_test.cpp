// SPDX-License-Identifier: Apache-2.0
// Both stages together, through the port of a device whose guest has its tables in guest memory.
#include <gtest/gtest.h>

#include "tandem/iommu/detail/page_table.hpp"
#include "tandem/iommu/detail/second_stage.hpp"
#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

using Tc = DeviceContext::Tc;

constexpr std::uint32_t kGscid = 9;
constexpr Scheme kGuest = scheme_of(SecondStageMode::kSv39x4);
constexpr std::uint64_t kReadOnly =
    Pte::V::kMask | Pte::R::kMask | Pte::U::kMask | Pte::A::kMask | Pte::D::kMask;

/// Guest memory lies kShift below where it really is.
class Nested : public Board {
 protected:
  static constexpr std::uint64_t kShift = 0x4000'0000;
  static constexpr std::uint64_t kIova = 0x12'3456'7abc;
  static constexpr std::uint64_t kDataGpa = 0x7000'0000;

  Nested() : Board(kAllCapabilities) {}

  /// As Board::start(), with a second stage that maps all of RAM by pages of 4 KiB.
  void start_guest(std::uint64_t more_tc = 0) {
    start(more_tc);
    guest_root_ = allocate_pages_aligned(16384);
    for (std::uint64_t page = kRamBase; page < kRamBase + kRamBytes; page += kPageBytes) {
      map_guest(page - kShift, page);
    }
    map_guest(kDataGpa, kData);
    context_.iohgatp = DeviceContext::Iohgatp::make(SecondStageMode::kSv39x4, guest_root_, kGscid);
    pdt_gpa_ = gpa_of(pdt_root_);
    context_.fsc = Fsc::make(PdtpMode::kPd8, pdt_gpa_ >> kPageShift);
    // The guest's own tables hold guest addresses.
    root_gpa_ = gpa_of(root_);
    set_process(PdtpMode::kPd8, pdt_root_, kPasid,
                process_context(FirstStageMode::kSv39, root_gpa_ >> kPageShift));
    write_context();
    map_iova(kDataGpa);
  }
  void write_context() {
    set_device(kDevice, context_);
    submit({iodir_inval_ddt(std::nullopt)});
  }
  static std::uint64_t gpa_of(std::uint64_t ppn) { return (ppn << kPageShift) - kShift; }
  void map_guest(std::uint64_t gpa, std::uint64_t spa, std::uint64_t flags = kLeaf) {
    map(guest_root_, kGuest, gpa, spa >> kPageShift, flags);
  }
  /// Maps kIova in the guest's Sv39 tables.
  void map_iova(std::uint64_t gpa, std::uint64_t flags = kLeaf, unsigned level = 0) {
    std::uint64_t page = root_;
    for (unsigned i = 2; i > level; --i) {
      const std::uint64_t at = (page << kPageShift) + (kIova >> (12 + i * 9) & 511) * 8;
      if (Pte::V::get(load(at)) == 0) {
        tables_.push_back(allocate_page());
        store(at, Pte::make_pointer(gpa_of(tables_.back()) >> kPageShift));
      }
      page = (Pte::Ppn::get(load(at)) + (kShift >> kPageShift));
    }
    leaf_at_ = (page << kPageShift) + (kIova >> (12 + level * 9) & 511) * 8;
    store(leaf_at_, Pte::Ppn::make(gpa >> kPageShift) | flags);
  }
  void expect_fault(Access access, Cause cause, std::uint64_t iotval2) {
    EXPECT_EQ(cause_of(translate(kIova, access)), cause);
    const auto faults = take_faults();
    ASSERT_EQ(faults.size(), 1U);
    EXPECT_EQ(faults[0].cause(), cause);
    EXPECT_EQ(faults[0].iotval, kIova);
    EXPECT_EQ(faults[0].iotval2, iotval2);
  }

  static constexpr std::uint64_t kData = 0x8123'4000;
  std::uint64_t guest_root_ = 0;
  std::uint64_t pdt_gpa_ = 0;
  std::uint64_t root_gpa_ = 0;
  std::uint64_t leaf_at_ = 0;
  std::vector<std::uint64_t> tables_;
};

// [iommu §3.3]
TEST_F(Nested, AnAddressGoesThroughBothStages) {
  start_guest();
  for (int i = 0; i < 2; ++i) {  // the second from the IOTLB
    const auto found = translate(kIova, Access::kWrite);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->address.value, kData | (kIova & 0xfff));
    EXPECT_EQ(found->log2_size, 12);
    EXPECT_TRUE(found->readable && found->writable);
  }
  EXPECT_EQ(iommu_->stats().iotlb_hits, 1U);
}

// [iommu §3.3]
TEST_F(Nested, TheSmallerPageAndTheLesserPermissionsCount) {
  start_guest();
  map_iova(0x4020'0000, kLeaf | Pte::X::kMask, 1);
  const std::uint64_t in_page = kIova & 0x1f'ffff;
  map_guest(0x4020'0000 + (in_page & ~0xfffULL), kData, kReadOnly | Pte::Pbmt::make(1));
  const auto found = translate(kIova);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->address.value, kData | (kIova & 0xfff));
  EXPECT_EQ(found->log2_size, 12);
  EXPECT_TRUE(found->readable);
  EXPECT_FALSE(found->writable);
  EXPECT_FALSE(found->executable);
  EXPECT_EQ(found->memory_type, MemoryType::kNc) << "the second stage's, as the first names none";
  map_iova(0x4020'0000, kLeaf | Pte::Pbmt::make(2), 1);
  submit({iotinval_vma(std::nullopt, std::nullopt, kGscid)});
  EXPECT_EQ(translate(kIova)->memory_type, MemoryType::kIo) << "the first stage's";
}

// [iommu §8.4]
TEST_F(Nested, PoisonAtEachReadOfAWalkHasTheCauseOfItsTable) {
  start_guest();
  const std::uint64_t process = process_slot(PdtpMode::kPd8, pdt_root_, kPasid);
  const struct {
    const char* what;
    std::uint64_t at;
    Cause cause;
  } reads[] = {
      {"device context", device_slot(kDevice), Cause::kDdtCorrupt},
      {"device context, fsc", device_slot(kDevice) + 24, Cause::kDdtCorrupt},
      {"process directory's page", pte_slot(guest_root_, kGuest, pdt_gpa_), Cause::kPdtCorrupt},
      {"process context", process, Cause::kPdtCorrupt},
      {"process context, fsc", process + 8, Cause::kPdtCorrupt},
      {"root's page", pte_slot(guest_root_, kGuest, root_gpa_), Cause::kPageTableCorrupt},
      {"root", pte_slot(root_, 3, kIova, 2), Cause::kPageTableCorrupt},
      {"leaf's page", pte_slot(guest_root_, kGuest, gpa_of(tables_.back())),
       Cause::kPageTableCorrupt},
      {"leaf", leaf_at_, Cause::kPageTableCorrupt},
      {"data's page", pte_slot(guest_root_, kGuest, kDataGpa), Cause::kPageTableCorrupt},
  };
  for (const auto& read : reads) {
    SCOPED_TRACE(read.what);
    ASSERT_TRUE(translate(kIova).has_value());
    ASSERT_TRUE(memory_.set_poison(PhysAddr{read.at}, 8).has_value());
    submit({iodir_inval_ddt(std::nullopt)});
    for (const Access access : {Access::kRead, Access::kWrite}) expect_fault(access, read.cause, 0);
    EXPECT_EQ(port_->ats_translate({kPasid, false}, Iova{kIova}, false).status,
              AtsCompletion::Status::kCompleterAbort);
    EXPECT_EQ(take_faults().size(), 1U);
    ASSERT_TRUE(memory_.clear_poison(PhysAddr{read.at}, 8).has_value());
  }
  EXPECT_TRUE(translate(kIova).has_value());
}

// [iommu §8.4, §3.7]
TEST_F(Nested, APageRequestWhoseDeviceContextIsPoisonedFails) {
  start_guest();
  ASSERT_TRUE(memory_.set_poison(PhysAddr{device_slot(kDevice)}, 8).has_value());
  submit({iodir_inval_ddt(std::nullopt)});
  PageRequest request;
  request.read = true;
  port_->page_request(request);
  const auto responses = device_.take_responses();
  ASSERT_EQ(responses.size(), 1U);
  EXPECT_EQ(responses[0].code, PageResponse::Code::kResponseFailure);
  EXPECT_EQ(take_faults().at(0).cause(), Cause::kDdtCorrupt);
}

// [iommu §4.2]
TEST_F(Nested, AGuestPageFaultNamesTheOriginalAccessAndTheGuestAddress) {
  start_guest();
  map_guest(kDataGpa, kData, 0);
  const std::uint64_t at = kDataGpa | (kIova & 0xffc);
  expect_fault(Access::kRead, Cause::kReadGuestPageFault, at);
  expect_fault(Access::kWrite, Cause::kWriteGuestPageFault, at);
  map_iova(kDataGpa, kLeaf | Pte::X::kMask);
  expect_fault(Access::kExecute, Cause::kInstructionGuestPageFault, at);
}

// [iommu §4.2]
TEST_F(Nested, AGuestPageFaultOnAnEntryOfTheFirstStageIsImplicit) {
  start_guest();
  const std::uint64_t entry = leaf_at_ - kShift;
  map_guest(entry & ~0xfffULL, leaf_at_ & ~0xfffULL, 0);
  expect_fault(Access::kWrite, Cause::kWriteGuestPageFault, entry | 1);
  EXPECT_EQ(cause_of(translate(kIova, Access::kRead)), Cause::kReadGuestPageFault);
}

// [iommu §3.3.2]
TEST_F(Nested, TheProcessDirectoryIsInGuestMemory) {
  start_guest();
  map_guest(pdt_gpa_, pdt_root_ << kPageShift, 0);
  expect_fault(Access::kRead, Cause::kReadGuestPageFault,
               (pdt_gpa_ + kPasid.value * sizeof(ProcessContext)) | 1);
  context_.iohgatp = DeviceContext::Iohgatp::make(SecondStageMode::kSv39x4, 0x12344, kGscid);
  write_context();
  EXPECT_EQ(cause_of(translate(kIova)), Cause::kPdtLoadFault) << "no tables there";
}

// [iommu §3.4]
TEST_F(Nested, AnEntryIsUpdatedOnlyWhereTheGuestMayWriteIt) {
  start_guest(Tc::Sade::kMask);
  map_iova(kDataGpa, kLeaf & ~(Pte::A::kMask | Pte::D::kMask));
  const std::uint64_t page = leaf_at_ & ~0xfffULL;
  map_guest(page - kShift, page, kReadOnly);
  expect_fault(Access::kWrite, Cause::kWriteGuestPageFault, (leaf_at_ - kShift) | 3);
  EXPECT_EQ(load(leaf_at_) & Pte::A::kMask, 0U);
  map_guest(page - kShift, page, kLeaf & ~Pte::D::kMask);
  expect_fault(Access::kWrite, Cause::kWriteGuestPageFault, (leaf_at_ - kShift) | 3);
  context_.tc |= Tc::Gade::kMask;
  write_context();
  EXPECT_TRUE(translate(kIova, Access::kWrite)->writable);
  EXPECT_EQ(load(leaf_at_) & (Pte::A::kMask | Pte::D::kMask), Pte::A::kMask | Pte::D::kMask);
  EXPECT_NE(load(pte_slot(guest_root_, kGuest, page - kShift)) & Pte::D::kMask, 0U);
}

// [iommu §3.1.3.1]
TEST_F(Nested, WithT2gpaAtsGivesGuestAddressesAndTranslatesThem) {
  start_guest(Tc::T2gpa::kMask);
  map_guest(kDataGpa, kData, kLeaf | Pte::Pbmt::make(2));
  for (int i = 0; i < 2; ++i) {
    const auto answer = port_->ats_translate({kPasid, false}, Iova{kIova}, false);
    EXPECT_EQ(answer.translation.address.value & ~0xfffULL, kDataGpa);
    EXPECT_TRUE(answer.translation.readable && answer.translation.writable);
    const auto moved = port_->translated({kPasid}, PhysAddr{kDataGpa | 8}, Access::kWrite);
    ASSERT_TRUE(moved.has_value());
    EXPECT_EQ(moved->address.value, kData | 8);
    EXPECT_EQ(moved->memory_type, MemoryType::kIo) << "the second stage's";
  }
  map_guest(kDataGpa, kData, kReadOnly);
  submit({iotinval_gvma(kGscid)});
  EXPECT_EQ(port_->translated({kPasid, false}, PhysAddr{kDataGpa | 8}, Access::kWrite).error(),
            Cause::kWriteGuestPageFault);
  EXPECT_EQ(take_faults().at(0).iotval2, kDataGpa | 8);
}

// [iommu §3.6]
TEST_F(Nested, AnAtsRequestThatMeetsAGuestPageFaultIsGrantedNothing) {
  start_guest();
  map_guest(kDataGpa, kData, 0);
  const auto answer = port_->ats_translate({kPasid, false}, Iova{kIova}, false);
  EXPECT_EQ(answer.status, AtsCompletion::Status::kSuccess);
  EXPECT_FALSE(answer.translation.readable || answer.translation.writable);
  EXPECT_TRUE(take_faults().empty());
  map_guest(kDataGpa, kData, kReadOnly);
  EXPECT_FALSE(port_->ats_translate({kPasid, false}, Iova{kIova}, false).translation.writable);
  EXPECT_TRUE(port_->ats_translate({kPasid, false}, Iova{kIova}, false).translation.readable);
}

// [iommu §4.1.1]
TEST_F(Nested, InvalidationsNameGuestsAndTheirAddressSpaces) {
  start_guest();
  const auto misses_after = [this](const Command& command) {
    EXPECT_TRUE(translate(kIova).has_value());
    submit({command});
    const auto before = iommu_->stats().iotlb_hits;
    EXPECT_TRUE(translate(kIova).has_value());
    return iommu_->stats().iotlb_hits == before;
  };
  EXPECT_TRUE(misses_after(iotinval_gvma(std::nullopt)));
  EXPECT_TRUE(misses_after(iotinval_gvma(kGscid)));
  EXPECT_FALSE(misses_after(iotinval_gvma(kGscid + 1)));
  EXPECT_TRUE(misses_after(iotinval_vma(std::nullopt, std::nullopt, kGscid)));
  EXPECT_TRUE(misses_after(iotinval_vma(std::nullopt, kPscid, kGscid)));
  EXPECT_TRUE(misses_after(iotinval_vma(kIova, kPscid, kGscid)));
  EXPECT_TRUE(misses_after(iotinval_vma(kIova, std::nullopt, kGscid)));
  EXPECT_FALSE(misses_after(iotinval_vma(std::nullopt, kPscid, kGscid + 1)));
  EXPECT_FALSE(misses_after(iotinval_vma(kIova + kPageBytes, kPscid, kGscid)));
  EXPECT_FALSE(misses_after(iotinval_vma(std::nullopt, kPscid))) << "a host's address space";
}

// [iommu §4.1.1]
TEST_F(Nested, AnyAddressOfTheFirstStagesPageNamesThePieceThatIsCached) {
  start_guest();
  map_iova(0x4020'0000, kLeaf, 1);
  map_guest(0x4020'0000 + (kIova & 0x1f'f000), kData);
  ASSERT_EQ(translate(kIova)->log2_size, 12);
  const auto before = iommu_->stats().iotlb_hits;
  submit({iotinval_vma(kIova ^ 0x10'0000, kPscid, kGscid)});
  ASSERT_TRUE(translate(kIova).has_value());
  EXPECT_EQ(iommu_->stats().iotlb_hits, before);
}

// [iommu §3.3]
TEST_F(Nested, ABareFirstStageLeavesTheSecond) {
  start_guest();
  set_process(PdtpMode::kPd8, pdt_root_, kPasid, process_context(FirstStageMode::kBare, 0));
  write_context();
  const auto found = translate(kDataGpa + 4, Access::kWrite);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->address.value, kData + 4);
  EXPECT_EQ(found->log2_size, 12);
  EXPECT_EQ(cause_of(translate(std::uint64_t{1} << 41, Access::kWrite)),
            Cause::kWriteGuestPageFault);
}

// [iommu §3.3]
TEST_F(Nested, WhatOneAccessFoundGrantsNoOtherThatTheSecondStageForbids) {
  start_guest();
  map_iova(kDataGpa, kLeaf | Pte::X::kMask);
  map_guest(kDataGpa, kData, (kReadOnly & ~Pte::R::kMask) | Pte::X::kMask);
  const auto code = translate(kIova, Access::kExecute);
  ASSERT_TRUE(code.has_value());
  EXPECT_FALSE(code->readable || code->writable);
  EXPECT_EQ(cause_of(translate(kIova)), Cause::kReadGuestPageFault);
  EXPECT_EQ(cause_of(translate(kIova, Access::kWrite)), Cause::kWriteGuestPageFault);
}

}  // namespace
}  // namespace tandem::iommu::detail
