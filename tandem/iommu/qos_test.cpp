// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

using Ta = DeviceContext::Ta;

class Qos : public Board {
 protected:
  explicit Qos(const Iommu::Options& options = {.capabilities = kAllCapabilities})
      : Board(options) {}
  /// Gives kDevice a context with these ids.
  void set_ids(std::uint64_t rcid, std::uint64_t mcid) {
    if (ddt_root_ == 0) set_ddtp(Ddtp::ModeValue::k1Lvl);
    ExtendedDeviceContext context;
    context.tc = DeviceContext::Tc::V::make(1);
    context.ta = Ta::Rcid::make(rcid) | Ta::Mcid::make(mcid);
    set_device(kDevice, context);
    if (command_ring_ == 0) enable_queues();
    submit({iodir_inval_ddt(kDevice.value)});
  }
};

// [iommu §6.27]
TEST_F(Qos, TheRegisterKeepsItsFields) {
  write(reg::kIommuQosid, 0xffff'ffff);
  EXPECT_EQ(read(reg::kIommuQosid), 0x0fff'0fffU);
  iommu_->reset();
  EXPECT_EQ(read(reg::kIommuQosid), 0U);
}

// [iommu §6.27] [iommu §9.1]
TEST_F(Qos, WithoutContextsTheRegisterHasTheIds) {
  EXPECT_EQ(port_->qos_ids().error(), Cause::kAllInboundDisallowed);
  write(reg::kIommuQosid, IommuQosid::Rcid::make(3) | IommuQosid::Mcid::make(0x123));
  write(reg::kDdtp, Ddtp::make(Ddtp::ModeValue::kBare), 8);
  EXPECT_EQ(port_->qos_ids().value(), (QosIds{3, 0x123}));
}

// [iommu §3.1.3.3] [iommu §9.1]
TEST_F(Qos, AContextHasTheIdsOfItsDevice) {
  write(reg::kIommuQosid, 0xffff'ffff);
  set_ids(0xabc, 0x789);
  EXPECT_EQ(port_->qos_ids().value(), (QosIds{0xabc, 0x789}));
  EXPECT_TRUE(port_->translate({}, Iova{0x1000}, Access::kRead).has_value());
}

/// Ids of four and of no bits.
class FewQosIds : public Qos {
 protected:
  FewQosIds() : Qos({.capabilities = kAllCapabilities, .rcid_bits = 4, .mcid_bits = 0}) {}
};

// [iommu §3.1.4] [iommu §6.27]
TEST_F(FewQosIds, WiderOnesAreMisconfigured) {
  write(reg::kIommuQosid, 0xffff'ffff);
  EXPECT_EQ(read(reg::kIommuQosid), 0xfU);
  set_ids(15, 0);
  EXPECT_EQ(port_->qos_ids().value(), (QosIds{15, 0}));
  set_ids(16, 0);
  EXPECT_EQ(port_->qos_ids().error(), Cause::kDdtMisconfigured);
  set_ids(0, 1);
  EXPECT_EQ(port_->qos_ids().error(), Cause::kDdtMisconfigured);
}

class NoQosIds : public Qos {
 protected:
  NoQosIds() : Qos({.capabilities = kAllCapabilities & ~Capabilities::Qosid::kMask}) {}
};

// [iommu §3.1.3.3] [iommu §6]
TEST_F(NoQosIds, TheirBitsAreReserved) {
  write(reg::kIommuQosid, 0xffff'ffff);
  EXPECT_EQ(read(reg::kIommuQosid), 0U);
  set_ids(0, 0);
  EXPECT_EQ(port_->qos_ids().value(), QosIds{});
  set_ids(1, 0);
  EXPECT_EQ(port_->qos_ids().error(), Cause::kDdtMisconfigured);
}

}  // namespace
}  // namespace tandem::iommu::detail
