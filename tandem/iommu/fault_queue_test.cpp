// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "tandem/base/mapping.hpp"
#include "tandem/iommu/detail/state.hpp"
#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

using Interrupt = Iommu::Interrupt;

class FaultQueue : public Board {};

// [iommu §4.2]
TEST_F(FaultQueue, ARecordNamesTheTransaction) {
  start(0, ProcessContext::Ta::Ens::make(1));
  struct Case {
    Access access;
    TransactionType type;
    Cause cause;
  };
  for (const auto& [access, type, cause] :
       {Case{Access::kRead, TransactionType::kUntranslatedRead, Cause::kReadPageFault},
        {Access::kWrite, TransactionType::kUntranslatedWrite, Cause::kWritePageFault},
        {Access::kExecute, TransactionType::kUntranslatedExecute, Cause::kInstructionPageFault}}) {
    EXPECT_EQ(cause_of(translate(0xdead'b000, access, true)), cause);
    const auto faults = take_faults();
    ASSERT_EQ(faults.size(), 1U);
    EXPECT_EQ(faults[0].cause(), cause);
    EXPECT_EQ(faults[0].type(), type);
    EXPECT_EQ(faults[0].device_id(), kDevice.value);
    EXPECT_EQ(faults[0].process_id(), kPasid.value);
    EXPECT_TRUE(faults[0].privileged());
    EXPECT_EQ(faults[0].iotval, 0xdead'b000U);
    EXPECT_EQ(faults[0].iotval2, 0U);
    EXPECT_EQ(faults[0].custom, 0U);
  }
}

// [iommu §4.2]
TEST_F(FaultQueue, WithoutAPasidPidAndPrivAreZero) {
  enable_queues();
  EXPECT_FALSE(port_->translate({std::nullopt, true}, Iova{0x1000}, Access::kRead).has_value());
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].cause(), Cause::kAllInboundDisallowed);
  EXPECT_EQ(faults[0].process_id(), std::nullopt);
  EXPECT_FALSE(faults[0].privileged());
}

// [iommu §4.2]
TEST_F(FaultQueue, DtfHidesTranslationFaultsOnly) {
  start(DeviceContext::Tc::Dtf::make(1));
  EXPECT_FALSE(translate(0x1000).has_value());
  EXPECT_FALSE(port_->translate({Pasid{200}, false}, Iova{0}, Access::kRead).has_value());
  EXPECT_TRUE(take_faults().empty());
  context_.tc |= DeviceContext::Tc::Sxl::kMask;
  set_device(kDevice, context_);
  forget_contexts();
  EXPECT_FALSE(translate(0x1000).has_value());
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].cause(), Cause::kDdtMisconfigured);
}

// [iommu §4.2]
TEST_F(FaultQueue, DtfSparesExactlyTheCausesOfTheTable) {
  for (const unsigned cause :
       {1U,   4U,   5U,   6U,   7U,   12U,  13U,  15U,  20U,  21U,  23U, 260U,
        261U, 262U, 263U, 264U, 265U, 266U, 267U, 269U, 270U, 271U, 274U}) {
    EXPECT_FALSE(reported_despite_dtf(static_cast<Cause>(cause))) << cause;
  }
  for (const unsigned cause : {256U, 257U, 258U, 259U, 268U, 272U, 273U}) {
    EXPECT_TRUE(reported_despite_dtf(static_cast<Cause>(cause))) << cause;
  }
}

// [iommu §4.2]
TEST_F(FaultQueue, OverflowDiscardsUntilSoftwareClearsIt) {
  start();
  constexpr unsigned kRoom = (1U << kLog2Queue) - 1;
  for (unsigned i = 0; i < kRoom; ++i) EXPECT_FALSE(translate(i * kPageBytes).has_value());
  EXPECT_EQ(read(reg::kFqcsr) & Fqcsr::Fqof::kMask, 0U) << "one entry stays empty";
  EXPECT_FALSE(translate(0x9000).has_value());
  EXPECT_NE(read(reg::kFqcsr) & Fqcsr::Fqof::kMask, 0U);
  EXPECT_EQ(take_faults().size(), kRoom);
  EXPECT_FALSE(translate(0xa000).has_value());
  EXPECT_TRUE(take_faults().empty()) << "discarded although there is room";
  write(reg::kFqcsr, Fqcsr::Fqen::kMask | Fqcsr::Fie::kMask | Fqcsr::Fqof::kMask);
  EXPECT_FALSE(translate(0xb000).has_value());
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].iotval, 0xb000U);
  EXPECT_EQ(iommu_->stats().faults, kRoom + 3);
}

// [iommu §6.16]
TEST_F(FaultQueue, AQueueThatCannotBeWrittenReportsAMemoryFault) {
  start();
  write(reg::kFqcsr, 0);
  write(reg::kFqb, QueueBase::make(kLog2Queue, kHolePpn), 8);
  write(reg::kFqcsr, Fqcsr::Fqen::kMask | Fqcsr::Fie::kMask);
  EXPECT_FALSE(translate(0x1000).has_value());
  EXPECT_NE(read(reg::kFqcsr) & Fqcsr::Fqmf::kMask, 0U);
  EXPECT_EQ(read(reg::kFqt), 0U);
  EXPECT_EQ(interrupts(Interrupt::kFaultQueue), 1);

  const auto late = Mapping::anonymous(kPageBytes);
  const auto region = memory_.add_host_ram(PhysAddr{kHolePpn << kPageShift}, late->bytes());
  ASSERT_TRUE(region.has_value());
  EXPECT_FALSE(translate(0x1000).has_value());
  EXPECT_EQ(read(reg::kFqt), 0U) << "dropped until software clears the bit";
  write(reg::kFqcsr, Fqcsr::Fqen::kMask | Fqcsr::Fqmf::kMask);
  EXPECT_FALSE(translate(0x1000).has_value());
  EXPECT_EQ(read(reg::kFqt), 1U);
  EXPECT_TRUE(memory_.remove(*region).has_value());
}

// [iommu §6.16]
TEST_F(FaultQueue, NothingIsRecordedWhileOff) {
  start();
  write(reg::kFqcsr, 0);
  EXPECT_FALSE(translate(0x1000).has_value());
  EXPECT_EQ(read(reg::kFqt), 0U);
  EXPECT_EQ(read(reg::kFqcsr), 0U);
}

// [iommu §6.18]
TEST_F(FaultQueue, TheInterruptHasOneEdgeUntilSoftwareClearsIt) {
  start();
  EXPECT_FALSE(translate(0x1000).has_value());
  EXPECT_FALSE(translate(0x2000).has_value());
  EXPECT_EQ(interrupts(Interrupt::kFaultQueue), 1);
  EXPECT_EQ(read(reg::kIpsr), Ipsr::Fip::kMask);
  write(reg::kIpsr, Ipsr::Fip::kMask);
  EXPECT_EQ(read(reg::kIpsr), 0U) << "a record that was there already is no new one";
  EXPECT_FALSE(translate(0x3000).has_value());
  EXPECT_EQ(interrupts(Interrupt::kFaultQueue), 2);
  write(reg::kFqcsr, Fqcsr::Fqen::kMask);  // fie off
  write(reg::kIpsr, Ipsr::Fip::kMask);
  EXPECT_FALSE(translate(0x4000).has_value());
  EXPECT_EQ(interrupts(Interrupt::kFaultQueue), 2);
  EXPECT_EQ(read(reg::kIpsr), 0U);
}

}  // namespace
}  // namespace tandem::iommu::detail
