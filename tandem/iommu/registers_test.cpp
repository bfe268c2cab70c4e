// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

class Registers : public Board {};

// [iommu §6.3]
TEST_F(Registers, CapabilitiesSayWhatIsSupported) {
  const std::uint64_t capabilities = read(reg::kCapabilities, 8);
  EXPECT_EQ(Capabilities::Version::get(capabilities), 0x10U);
  EXPECT_EQ(Capabilities::Sv39::get(capabilities), 1U);
  EXPECT_EQ(Capabilities::Sv48::get(capabilities), 1U);
  EXPECT_EQ(Capabilities::Sv57::get(capabilities), 1U);
  EXPECT_EQ(Capabilities::AmoHwad::get(capabilities), 1U);
  EXPECT_EQ(Capabilities::Ats::get(capabilities), 1U);
  EXPECT_EQ(Capabilities::Igs::get(capabilities), Capabilities::kIgsWsi);
  EXPECT_EQ(Capabilities::Pas::get(capabilities), 56U);
  EXPECT_EQ(Capabilities::MsiFlat::get(capabilities), 0U);
  EXPECT_EQ(Capabilities::Nl::get(capabilities) | Capabilities::S::get(capabilities), 0U);
  EXPECT_EQ(read(reg::kCapabilities) | read(reg::kCapabilities + 4) << 32, capabilities);
  write(reg::kCapabilities, ~std::uint64_t{0}, 8);
  EXPECT_EQ(read(reg::kCapabilities, 8), capabilities);
}

// [iommu §6.2]
TEST_F(Registers, ResetLeavesEverythingOff) {
  EXPECT_EQ(read(reg::kDdtp, 8), 0U);
  for (const auto offset : {reg::kCqcsr, reg::kFqcsr, reg::kPqcsr, reg::kIpsr}) {
    EXPECT_EQ(read(offset), 0U) << offset;
  }
  EXPECT_EQ(read(reg::kFctl), Fctl::Wsi::kMask);
}

/// An IOMMU that lets everything through until software sets it up.
class ResetToBare : public Board {
 protected:
  ResetToBare() : Board(Iommu::Options{.reset_mode = Ddtp::ModeValue::kBare}) {}
};

// [iommu §6.2]
TEST_F(ResetToBare, RequestsPassAtOnce) {
  EXPECT_EQ(read(reg::kDdtp, 8), Ddtp::make(Ddtp::ModeValue::kBare));
  const auto passed = port_->translate({}, Iova{0x5000}, Access::kWrite);
  ASSERT_TRUE(passed.has_value());
  EXPECT_EQ(passed->address.value, 0x5000U);
}

// [iommu §6.1]
TEST_F(Registers, ReservedOffsetsReadZeroAndIgnoreWrites) {
  for (std::uint32_t offset = 0; offset < reg::kFileBytes; offset += 4) {
    const bool exists = offset < 12 || (offset >= 16 && offset < 88) || offset == reg::kIcvec;
    if (exists) continue;
    write(offset, 0xffff'ffff);
    EXPECT_EQ(read(offset), 0U) << offset;
  }
}

// [iommu §6]
TEST_F(Registers, AccessesOfOtherSizesOrAlignmentsDoNothing) {
  write(reg::kCqb, QueueBase::make(4, 0x777), 8);
  write(reg::kCqb, 0, 2);
  write(reg::kCqb + 2, 0, 4);
  write(reg::kCqb + 4, 0, 8);
  EXPECT_EQ(read(reg::kCqb, 8), QueueBase::make(4, 0x777));
  EXPECT_EQ(read(reg::kCqb, 1), 0U);
  EXPECT_EQ(read(reg::kCqb + 1, 4), 0U);
  EXPECT_EQ(read(reg::kFileBytes, 8), 0U);
  EXPECT_EQ(read(0xffff'fff8, 8), 0U);
}

// [iommu §6.5]
TEST_F(Registers, DdtpKeepsLegalValues) {
  write(reg::kDdtp, ~std::uint64_t{0}, 8);
  EXPECT_EQ(read(reg::kDdtp, 8), Ddtp::Ppn::kMask) << "a reserved mode leaves Off";
  write(reg::kDdtp, Ddtp::make(Ddtp::ModeValue::k3Lvl, 0xabc), 8);
  EXPECT_EQ(read(reg::kDdtp, 8), Ddtp::make(Ddtp::ModeValue::k3Lvl, 0xabc));
  write(reg::kDdtp, Ddtp::make(Ddtp::ModeValue::kOff, 0xabc), 4);
  EXPECT_EQ(read(reg::kDdtp, 8), Ddtp::make(Ddtp::ModeValue::kOff, 0xabc));
}

// [iommu §6.6] [iommu §6.9] [iommu §6.12]
TEST_F(Registers, QueueBasesKeepTheirFieldsAndTrimTheirIndex) {
  struct Queue {
    std::uint32_t base;
    std::uint32_t index;
  };
  for (const auto& [base, index] :
       {Queue{reg::kCqb, reg::kCqt}, {reg::kFqb, reg::kFqh}, {reg::kPqb, reg::kPqh}}) {
    write(base, ~std::uint64_t{0}, 8);
    EXPECT_EQ(read(base, 8), QueueBase::Log2SizeMinus1::kMask | QueueBase::Ppn::kMask);
    write(index, 0xffff'ffff);
    EXPECT_EQ(read(index), 0xffff'ffffU) << "2^32 entries";
    write(base, QueueBase::make(3, 1), 8);
    EXPECT_EQ(read(index), 7U);
    write(base, 0x1234'5400);  // the low half alone
    EXPECT_EQ(read(base, 8), 0x1234'5400U);
  }
}

// [iommu §6.7] [iommu §6.11] [iommu §6.14]
TEST_F(Registers, TheIommusOwnIndicesAreReadOnly) {
  for (const auto offset : {reg::kCqh, reg::kFqt, reg::kPqt}) {
    write(offset, 5);
    EXPECT_EQ(read(offset), 0U) << offset;
  }
}

// [iommu §6.15] [iommu §6.16] [iommu §6.17]
TEST_F(Registers, ABaseIsFixedWhileItsQueueIsOn) {
  enable_queues();
  for (const auto offset : {reg::kCqb, reg::kFqb, reg::kPqb}) {
    const std::uint64_t before = read(offset, 8);
    write(offset, 0, 8);
    EXPECT_EQ(read(offset, 8), before);
  }
  for (const auto offset : {reg::kCqcsr, reg::kFqcsr, reg::kPqcsr}) {
    EXPECT_EQ(read(offset), 0x1'0003U) << "enabled, interrupt enabled, on; never busy";
    write(offset, 0);
    EXPECT_EQ(read(offset), 0U);
  }
}

// [iommu §6]
TEST_F(Registers, EightBytesAtFourByteRegistersAreTwoAccesses) {
  enable_queues();
  EXPECT_EQ(read(reg::kCqcsr, 8), 0x1'0003'0001'0003U);
  write(reg::kCqcsr, 0, 8);
  EXPECT_EQ(read(reg::kCqcsr, 8), 0U);
}

}  // namespace
}  // namespace tandem::iommu::detail
