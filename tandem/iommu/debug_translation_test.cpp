// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/debug_translation.hpp"

#include <gtest/gtest.h>

#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

constexpr std::uint64_t kRead = TrReqCtl::Nw::make(1);
constexpr std::uint64_t kReadWrite = 0;
constexpr std::uint64_t kExecute = TrReqCtl::Nw::make(1) | TrReqCtl::Exe::make(1);

class Debug : public Board {
 protected:
  explicit Debug(std::uint64_t capabilities = kHostCapabilities | Capabilities::Dbg::make(1) |
                                              Capabilities::Svpbmt::make(1))
      : Board(capabilities) {}

  /// The response to a request of kDevice's kPasid.
  std::uint64_t ask(std::uint64_t iova, std::uint64_t control = kRead) {
    return ask_for(kDevice, iova,
                   control | TrReqCtl::Pv::make(1) | TrReqCtl::Pid::make(kPasid.value));
  }
  std::uint64_t ask_for(DeviceId device, std::uint64_t iova, std::uint64_t control) {
    write(reg::kTrReqIova, iova, 8);
    write(reg::kTrReqCtl, control | TrReqCtl::Did::make(device.value) | TrReqCtl::Go::make(1), 8);
    EXPECT_EQ(read(reg::kTrReqCtl) & TrReqCtl::Go::kMask, 0U);
    return read(reg::kTrResponse, 8);
  }
  static std::uint64_t response(std::uint64_t ppn) { return TrResponse::Ppn::make(ppn); }
};

// [iommu §6.24] [iommu §6.25] [iommu §6.26]
TEST_F(Debug, RegistersKeepTheirFields) {
  write(reg::kTrReqIova, ~std::uint64_t{0}, 8);
  EXPECT_EQ(read(reg::kTrReqIova, 8), ~std::uint64_t{0xfff});
  write(reg::kTrReqIova + 4, 0x12);
  EXPECT_EQ(read(reg::kTrReqIova, 8), 0x12'ffff'f000U);
  write(reg::kTrReqCtl, ~TrReqCtl::Go::kMask, 8);
  EXPECT_EQ(read(reg::kTrReqCtl, 8), 0xffff'ff01'ffff'f00eU);
  write(reg::kTrResponse, ~std::uint64_t{0}, 8);
  EXPECT_EQ(read(reg::kTrResponse, 8), 0U) << "nothing has been asked";
}

// [iommu §5] [iommu §6.26]
TEST_F(Debug, TheResponseHasTheSizeOfThePage) {
  start();
  map(root_, 3, 0x7000, 0x12345);
  map(root_, 3, 0x20'0000, 0x4'5600, kLeaf, 1);
  map(root_, 3, 0x4000'0000, 0x1234'0000 & ~0x3ffffULL, kLeaf, 2);
  for (unsigned i = 0; i < 16; ++i) {
    map(root_, 3, 0x10000 + i * kPageBytes, 0x5558, kLeaf | Pte::N::make(1));
  }
  map(root_, 3, 0x5000, 0x777, kLeaf | Pte::Pbmt::make(2));
  EXPECT_EQ(ask(0x7000), response(0x12345));
  EXPECT_EQ(ask(0x13000), response(0x5550 | 0x7) | TrResponse::S::make(1)) << "64 KiB";
  EXPECT_EQ(ask(0x20'3000), response(0x4'5600 | 0xff) | TrResponse::S::make(1)) << "2 MiB";
  EXPECT_EQ(ask(0x4765'4000),
            response((0x1234'0000 & ~0x3ffffULL) | 0x1ffff) | TrResponse::S::make(1))
      << "1 GiB";
  EXPECT_EQ(ask(0x5000), response(0x777) | TrResponse::Pbmt::make(2));
  EXPECT_EQ(iommu_->stats().iotlb_hits, 0U);
  EXPECT_TRUE(translate(0x7000).has_value());
  EXPECT_TRUE(take_faults().empty());
}

// [iommu §6.25]
TEST_F(Debug, PermissionsAreThoseAskedFor) {
  start(0, ProcessContext::Ta::Ens::make(1));
  constexpr std::uint64_t kFault = TrResponse::Fault::kMask;
  map(root_, 3, 0x1000, 0x10, kLeaf & ~Pte::W::kMask);
  map(root_, 3, 0x2000, 0x20, kLeaf | Pte::X::kMask);
  map(root_, 3, 0x3000, 0x30, kLeaf & ~Pte::U::kMask);
  EXPECT_EQ(ask(0x1000, kRead), response(0x10));
  EXPECT_EQ(ask(0x1000, kReadWrite), kFault);
  EXPECT_EQ(ask(0x1000, kExecute), kFault);
  EXPECT_EQ(ask(0x2000, kReadWrite), response(0x20));
  EXPECT_EQ(ask(0x2000, kExecute), response(0x20));
  EXPECT_EQ(ask(0x3000, kRead), kFault);
  EXPECT_EQ(ask(0x3000, kRead | TrReqCtl::Priv::make(1)), response(0x30));
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 3U);
  EXPECT_EQ(faults[0].cause(), Cause::kWritePageFault);
  EXPECT_EQ(faults[0].type(), TransactionType::kUntranslatedWrite);
  EXPECT_EQ(faults[1].cause(), Cause::kInstructionPageFault);
  EXPECT_EQ(faults[1].type(), TransactionType::kUntranslatedExecute);
  EXPECT_EQ(faults[2].cause(), Cause::kReadPageFault);
  EXPECT_EQ(faults[2].type(), TransactionType::kUntranslatedRead);
  EXPECT_EQ(faults[2].device_id(), kDevice.value);
  EXPECT_EQ(faults[2].process_id(), kPasid.value);
  EXPECT_EQ(faults[2].iotval, 0x3000U);
}

// [iommu §6.25]
TEST_F(Debug, AnyDeviceCanBeAskedFor) {
  start();
  EXPECT_EQ(ask_for(DeviceId{3}, 0x1000, kRead), TrResponse::Fault::kMask);
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].cause(), Cause::kDdtNotValid);
  EXPECT_EQ(faults[0].device_id(), 3U);
  context_ = {};
  context_.tc = DeviceContext::Tc::V::make(1);
  set_device(DeviceId{4}, context_);
  EXPECT_EQ(ask_for(DeviceId{4}, 0x5000, kRead | TrReqCtl::Pid::make(9)) & TrResponse::Fault::kMask,
            0U)
      << "without PV there is no process";
}

/// Everything but this.
class NoDebug : public Debug {
 protected:
  NoDebug() : Debug(kAllCapabilities & ~Capabilities::Dbg::kMask) {}
};

// [iommu §6]
TEST_F(NoDebug, RegistersReadZero) {
  for (const auto at : {reg::kTrReqIova, reg::kTrReqCtl, reg::kTrResponse}) {
    write(at, ~std::uint64_t{0}, 8);
    EXPECT_EQ(read(at, 8), 0U);
  }
}

/// A guest's device with an interrupt file in memory.
class DebugOfAGuest : public Debug {
 protected:
  DebugOfAGuest() : Debug(kAllCapabilities) {}
};

// [iommu §5]
TEST_F(DebugOfAGuest, AnInterruptFileInMemoryIsNoAnswer) {
  enable_queues();
  set_ddtp(Ddtp::ModeValue::k1Lvl);
  const std::uint64_t table = allocate_page();
  ExtendedDeviceContext context;
  context.tc = DeviceContext::Tc::V::make(1);
  context.iohgatp =
      DeviceContext::Iohgatp::make(SecondStageMode::kSv39x4, allocate_pages_aligned(16384), 9);
  context.msiptp = ExtendedDeviceContext::Msiptp::make_flat(table);
  context.msi_addr_pattern = 0x70008;
  set_device(kDevice, context);
  const MsiPte entry = MsiPte::mrif(kRamBase, kRamBase >> kPageShift, 5);
  store((table << kPageShift) + 8, entry.words[1]);
  store(table << kPageShift, entry.words[0]);
  EXPECT_EQ(ask_for(kDevice, 0x7000'8000, kReadWrite), TrResponse::Fault::kMask);
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].cause(), Cause::kTtypeBlocked);
}

}  // namespace
}  // namespace tandem::iommu::detail
