// SPDX-License-Identifier: Apache-2.0
// What an ATS translation completion says beside what translate_test shows.
#include <gtest/gtest.h>

#include "tandem/iommu/detail/second_stage.hpp"
#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

using Iohgatp = DeviceContext::Iohgatp;
using Status = AtsCompletion::Status;
using Ta = ProcessContext::Ta;
using Tc = DeviceContext::Tc;

constexpr AtsRequest kExecute{.no_write = true, .execute = true};
constexpr AtsRequest kCxl{.cxl = true};

class AtsCompletionTest : public Board {
 protected:
  AtsCompletionTest() : Board(kAllCapabilities) {}

  AtsCompletion ask(std::uint64_t iova, const AtsRequest& request, bool privileged = false) {
    return port_->ats_translate({kPasid, privileged}, Iova{iova}, request);
  }
  void write_context() {
    set_device(kDevice, context_);
    submit({iodir_inval_ddt(std::nullopt)});
  }
};

// [iommu §3.6]
TEST_F(AtsCompletionTest, ExecuteIsGrantedOnlyWhenAskedForAndOnlyWithRead) {
  start();
  map(root_, 3, 0x1000, 0x90000, kLeaf | Pte::X::kMask);
  map(root_, 3, 0x2000, 0x91000, kLeaf);
  map(root_, 3, 0x3000, 0x92000, Pte::V::kMask | Pte::U::kMask | Pte::X::kMask | Pte::A::kMask);
  for (int i = 0; i < 2; ++i) {
    EXPECT_FALSE(ask(0x1000, {}).translation.executable);
    const auto all = ask(0x1000, kExecute);
    EXPECT_TRUE(all.translation.executable && all.translation.readable);
    const auto denied = ask(0x2000, kExecute);
    EXPECT_EQ(denied.status, Status::kSuccess);
    EXPECT_TRUE(denied.translation.readable) << "only what is missing is denied";
    EXPECT_FALSE(denied.translation.executable);
    const auto execute_only = ask(0x3000, kExecute);
    EXPECT_EQ(execute_only.status, Status::kSuccess);
    EXPECT_FALSE(execute_only.translation.executable || execute_only.translation.readable);
  }
  EXPECT_TRUE(take_faults().empty());
}

// [iommu §3.6]
TEST_F(AtsCompletionTest, WithoutAPasidNothingIsPrivilegedOrExecutable) {
  start();
  context_.tc = Tc::V::make(1) | Tc::EnAts::make(1);
  context_.fsc = Fsc::make(FirstStageMode::kSv39, root_);
  write_context();
  map(root_, 3, 0x1000, 0x90000, kLeaf | Pte::X::kMask | Pte::G::kMask);
  const auto answer = port_->ats_translate({std::nullopt, true}, Iova{0x1000}, kExecute);
  EXPECT_EQ(answer.status, Status::kSuccess);
  EXPECT_TRUE(answer.translation.readable) << "a user's page";
  EXPECT_FALSE(answer.translation.executable || answer.privileged || answer.translation.global);
}

// [iommu §3.6]
TEST_F(AtsCompletionTest, PrivIsTheRequests) {
  start(0, Ta::Ens::kMask);
  map(root_, 3, 0x1000, 0x90000, kLeaf & ~Pte::U::kMask);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(ask(0x1000, {}, true).privileged);
    EXPECT_TRUE(ask(0x1000, {}, true).translation.readable);
    EXPECT_FALSE(ask(0x1000, {}, false).privileged);
    EXPECT_FALSE(ask(0x1000, {}, false).translation.readable);
    EXPECT_TRUE(ask(0x2000, {}, true).privileged) << "also where nothing is granted";
  }
}

// [iommu §3.6]
TEST_F(AtsCompletionTest, AConfigurationErrorIsOfTheKindOfAccessAskedFor) {
  start();
  set_process(PdtpMode::kPd8, pdt_root_, kPasid, process_context(FirstStageMode::kSv39, kHolePpn));
  submit({iodir_inval_pdt(kDevice.value, kPasid.value)});
  EXPECT_EQ(ask(0x1000, kExecute).status, Status::kCompleterAbort);
  EXPECT_EQ(ask(0x1000, {}).status, Status::kCompleterAbort);
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 2U);
  EXPECT_EQ(faults[0].cause(), Cause::kInstructionAccessFault);
  EXPECT_EQ(faults[1].cause(), Cause::kReadAccessFault) << "a write that is asked for, too";
}

// [iommu §3.6]
TEST_F(AtsCompletionTest, ACxlDeviceIsToldOfMemoryThatIsNotCached) {
  start();
  map(root_, 3, 0x1000, 0x90000);
  map(root_, 3, 0x2000, 0x91000, kLeaf | Pte::Pbmt::make(1));
  map(root_, 3, 0x3000, 0x92000, kLeaf | Pte::Pbmt::make(2));
  for (int i = 0; i < 2; ++i) {
    EXPECT_FALSE(ask(0x1000, kCxl).cxl_io);
    EXPECT_TRUE(ask(0x2000, kCxl).cxl_io);
    EXPECT_TRUE(ask(0x3000, kCxl).cxl_io);
    EXPECT_FALSE(ask(0x3000, {}).cxl_io) << "no CXL device";
  }
}

// [iommu §3.6]
TEST_F(AtsCompletionTest, ACxlDeviceThatIsGivenGuestAddressesUsesCxlIo) {
  start();
  const std::uint64_t root = allocate_pages_aligned(16384);
  map(root, scheme_of(SecondStageMode::kSv39x4), kRamBase, kRamBase >> kPageShift, kLeaf, 2);
  context_.iohgatp = Iohgatp::make(SecondStageMode::kSv39x4, root, 1);
  write_context();
  map(root_, 3, 0x1000, kRamBase >> kPageShift);
  EXPECT_FALSE(ask(0x1000, kCxl).cxl_io);
  context_.tc |= Tc::T2gpa::kMask;
  write_context();
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(ask(0x1000, kCxl).cxl_io);
  EXPECT_TRUE(ask(0x5000, kCxl).cxl_io) << "also where nothing is granted";
}

// [iommu §3.6]
TEST_F(AtsCompletionTest, AnInterruptFileIsNeitherExecutableNorGlobalNorForCxlCache) {
  start();
  const std::uint64_t root = allocate_pages_aligned(16384);
  map(root, scheme_of(SecondStageMode::kSv39x4), kRamBase, kRamBase >> kPageShift, kLeaf, 2);
  const std::uint64_t table = allocate_page();
  constexpr std::uint64_t kFile = 0x2400'0000;
  context_.iohgatp = Iohgatp::make(SecondStageMode::kSv39x4, root, 1);
  context_.msiptp = ExtendedDeviceContext::Msiptp::make_flat(table);
  context_.msi_addr_pattern = kFile >> kPageShift;
  write_context();
  const MsiPte entry = MsiPte::basic(0x2'8003);
  store((table << kPageShift) + 8, entry.words[1]);
  store(table << kPageShift, entry.words[0]);
  map(root_, 3, 0x1000, kFile >> kPageShift, kLeaf | Pte::X::kMask | Pte::G::kMask);
  AtsRequest request = kExecute;
  request.cxl = true;
  for (int i = 0; i < 2; ++i) {
    const auto answer = ask(0x1000, request);
    EXPECT_EQ(answer.status, Status::kSuccess);
    EXPECT_EQ(answer.translation.address.value, 0x2800'3000U);
    EXPECT_TRUE(answer.translation.readable && answer.cxl_io);
    EXPECT_FALSE(answer.translation.executable || answer.translation.global);
    EXPECT_FALSE(answer.untranslated_only);
  }
  EXPECT_TRUE(take_faults().empty());
}

}  // namespace
}  // namespace tandem::iommu::detail
