// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/context_cache.hpp"

#include <gtest/gtest.h>

#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

constexpr DeviceId kDevice{3};
constexpr std::uint32_t kProcess = 9;

class ContextCacheTest : public ::testing::Test {
 protected:
  Generations::Snapshot snapshot() {
    Generations::Snapshot snapshot(generations_, kDevice, kProcess);
    snapshot.add_domain(5);
    return snapshot;
  }
  void fill() {
    const auto made = snapshot();
    contexts_.fill_device(kDevice, {{1, 2, 3, 4}, 5, 6, 7, 0}, made.of_device_context());
    contexts_.fill_process(kDevice, kProcess, {8, 9}, made.of_process_context());
  }
  std::optional<ExtendedDeviceContext> find_device(DeviceId device) {
    ExtendedDeviceContext found;
    if (!contexts_.find_device(device, found)) return std::nullopt;
    return found;
  }
  std::optional<ProcessContext> find_process(DeviceId device, std::uint32_t process) {
    ProcessContext found;
    if (!contexts_.find_process(device, process, found)) return std::nullopt;
    return found;
  }
  Generations generations_;
  ContextCache contexts_{generations_};
};

// [iommu §3.8]
TEST_F(ContextCacheTest, AContextComesBackForItsDeviceAndProcessOnly) {
  EXPECT_FALSE(find_device({0}) || find_process({0}, 0)) << "nothing yet";
  fill();
  const auto device = find_device(kDevice);
  ASSERT_TRUE(device.has_value());
  EXPECT_EQ(device->tc, 1U);
  EXPECT_EQ(device->iohgatp, 2U);
  EXPECT_EQ(device->ta, 3U);
  EXPECT_EQ(device->fsc, 4U);
  EXPECT_EQ(device->msiptp, 5U);
  EXPECT_EQ(device->msi_addr_mask, 6U);
  EXPECT_EQ(device->msi_addr_pattern, 7U);
  const auto process = find_process(kDevice, kProcess);
  ASSERT_TRUE(process.has_value());
  EXPECT_EQ(process->ta, 8U);
  EXPECT_EQ(process->fsc, 9U);
  for (std::uint32_t bit = 0; bit < 24; ++bit) {
    const DeviceId other{kDevice.value ^ 1U << bit};
    EXPECT_FALSE(find_device(other));
    EXPECT_FALSE(find_process(other, kProcess));
    if (bit < kPasidBits) {
      EXPECT_FALSE(find_process(kDevice, kProcess ^ 1U << bit));
    }
  }
}

// [iommu §4.1.3]
TEST_F(ContextCacheTest, AnInvalidationTakesWhatItNames) {
  fill();
  generations_.invalidate_process(kDevice, kProcess);
  EXPECT_TRUE(find_device(kDevice));
  EXPECT_FALSE(find_process(kDevice, kProcess));
  fill();
  generations_.invalidate_device(kDevice);
  EXPECT_FALSE(find_device(kDevice) || find_process(kDevice, kProcess));
  fill();
  generations_.invalidate_domain(5);
  EXPECT_TRUE(find_device(kDevice));
  EXPECT_FALSE(find_process(kDevice, kProcess)) << "a guest's second stage led to it";
  fill();
  generations_.invalidate_all();
  EXPECT_FALSE(find_device(kDevice) || find_process(kDevice, kProcess));
}

class CachedContexts : public Board {};

// [iommu §3.8]
TEST_F(CachedContexts, AreUsedUntilIodirNamesThem) {
  start();
  map(root_, 3, 0x1000, 0x91000);
  map(root_, 3, 0x2000, 0x92000);
  EXPECT_TRUE(translate(0x1000).has_value());
  // Without a command the old contexts may be used: they are.
  set_process(PdtpMode::kPd8, pdt_root_, kPasid, {});
  EXPECT_TRUE(translate(0x2000).has_value());
  submit({iodir_inval_pdt(Board::kDevice.value, kPasid.value + 1), iofence_c({})});
  EXPECT_TRUE(translate(0x2000).has_value());
  submit({iodir_inval_pdt(Board::kDevice.value, kPasid.value), iofence_c({})});
  EXPECT_EQ(cause_of(translate(0x1000)), Cause::kPdtNotValid);
  EXPECT_EQ(cause_of(translate(0x2000)), Cause::kPdtNotValid);

  context_.tc = 0;
  set_device(Board::kDevice, context_);
  EXPECT_EQ(cause_of(translate(0x1000)), Cause::kPdtNotValid) << "its directory is still known";
  submit({iodir_inval_ddt(Board::kDevice.value + 1), iofence_c({})});
  EXPECT_EQ(cause_of(translate(0x1000)), Cause::kPdtNotValid);
  submit({iodir_inval_ddt(Board::kDevice.value), iofence_c({})});
  EXPECT_EQ(cause_of(translate(0x1000)), Cause::kDdtNotValid);
}

// [iommu §4.1.3]
TEST_F(CachedContexts, OfADeviceAreForgottenWithItsProcesses) {
  start();
  map(root_, 3, 0x1000, 0x91000);
  EXPECT_TRUE(translate(0x1000).has_value());
  set_process(PdtpMode::kPd8, pdt_root_, kPasid, {});
  submit({iodir_inval_ddt(Board::kDevice.value), iofence_c({})});
  EXPECT_EQ(cause_of(translate(0x1000)), Cause::kPdtNotValid);
}

// [iommu §3.8]
TEST_F(CachedContexts, WhatIsNotValidOrMisconfiguredIsNotCached) {
  start();
  map(root_, 3, 0x1000, 0x91000);
  set_process(PdtpMode::kPd8, pdt_root_, kPasid, {});
  EXPECT_EQ(cause_of(translate(0x1000)), Cause::kPdtNotValid);
  set_process(PdtpMode::kPd8, pdt_root_, kPasid,
              {ProcessContext::Ta::V::make(1) | ProcessContext::Ta::kReserved, 0});
  EXPECT_EQ(cause_of(translate(0x1000)), Cause::kPdtMisconfigured);
  set_process(PdtpMode::kPd8, pdt_root_, kPasid, process_context(FirstStageMode::kSv39, root_));
  EXPECT_TRUE(translate(0x1000).has_value());
}

// [iommu §6.5]
TEST_F(CachedContexts, AreForgottenWhenDdtpIsWritten) {
  start();
  map(root_, 3, 0x1000, 0x91000);
  EXPECT_TRUE(translate(0x1000).has_value());
  const std::uint64_t other = allocate_page();
  write(reg::kDdtp, Ddtp::make(Ddtp::ModeValue::k1Lvl, other), 8);
  EXPECT_EQ(cause_of(translate(0x1000)), Cause::kDdtNotValid);
}

}  // namespace
}  // namespace tandem::iommu::detail
