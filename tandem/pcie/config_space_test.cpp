// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <memory>

#include "tandem/pcie/detail/test_bench.hpp"
#include "tandem/pcie/pcie.hpp"
#include "tandem/pcie/spec.hpp"

namespace tandem::pcie {
namespace {

using namespace config;
using Bench = detail::TestBench;
using Reason = DmaFault::Reason;
constexpr Pasid kPasid{1};
constexpr std::uint64_t kVa = 0x7f12'3456'7000;

class Scratch : public memory::IoRegion {
 public:
  memory::Outcome read(std::uint64_t, std::span<std::byte> to) override {
    std::ranges::fill(to, std::byte{0x77});
    return {to.size(), memory::Fault::kNone};
  }
  memory::Outcome write(std::uint64_t, std::span<const std::byte> from) override {
    return {from.size(), memory::Fault::kNone};
  }
};

class ConfigSpaceTest : public testing::Test {
 protected:
  Endpoint& open(Endpoint::Options options = {.enabled = false}) {
    endpoint_.reset();
    endpoint_ = bench_.endpoint(options);
    return *endpoint_;
  }
  std::uint32_t read(std::uint32_t offset, unsigned size_bytes = 4) {
    return endpoint_->config_read(offset, size_bytes);
  }
  void write(std::uint32_t offset, std::uint32_t value, unsigned size_bytes = 4) {
    endpoint_->config_write(offset, value, size_bytes);
  }
  /// Offset of a capability; 0 when it is not there.
  std::uint32_t pcie_capability() { return detail::find_capability(*endpoint_, kPcieCapabilityId); }
  std::uint32_t extended(std::uint64_t id) {
    for (std::uint32_t at = kExtendedCapabilities; at != 0;) {
      const std::uint32_t header = read(at);
      if (ExtendedCapability::Id::get(header) == id) return at;
      at = static_cast<std::uint32_t>(ExtendedCapability::Next::get(header));
    }
    return 0;
  }
  std::uint32_t pasid() { return extended(ExtendedCapability::kPasid); }
  std::uint32_t ats() { return extended(ExtendedCapability::kAts); }
  std::uint32_t page_request() { return extended(ExtendedCapability::kPageRequest); }

  Bench bench_;
  std::unique_ptr<Endpoint> endpoint_;
};

// [PCIe "Type 0 Configuration Space Header"]
TEST_F(ConfigSpaceTest, TheHeaderSaysWhoTheFunctionIs) {
  open({.enabled = false,
        .identity = {.vendor_id = 0x1de5,
                     .device_id = 0xcafe,
                     .revision = 3,
                     .class_code = 0x0b4000,
                     .subsystem_vendor_id = 0x1111,
                     .subsystem_id = 0x2222,
                     .multi_function = true}});
  EXPECT_EQ(read(0), 0xcafe1de5u);
  EXPECT_EQ(read(kVendorId, 2), 0x1de5u);
  EXPECT_EQ(read(kDeviceId + 1, 1), 0xcau);
  EXPECT_EQ(read(kRevisionId), 0x0b400003u);
  EXPECT_EQ(read(kHeaderType, 1), 0x80u);
  EXPECT_EQ(read(kSubsystemVendorId), 0x22221111u);
  write(0, 0);
  write(kRevisionId, 0xffffffff);
  EXPECT_EQ(read(0), 0xcafe1de5u);
  EXPECT_EQ(read(kRevisionId), 0x0b400003u);
}

// [PCIe "Command Register", "Status Register"]
TEST_F(ConfigSpaceTest, CommandBitsThatExistCanBeWritten) {
  open();
  EXPECT_EQ(read(kCommand, 2), 0u);
  write(kCommand, 0xffff, 2);
  EXPECT_EQ(read(kCommand, 2), 0x0546u);
  write(kCommand, 0, 1);
  EXPECT_EQ(read(kCommand, 2), 0x0500u);
  EXPECT_EQ(read(kStatus, 2), 0x0010u) << "a list of capabilities, no error";
  write(kInterruptLine, 0x2b, 1);
  EXPECT_EQ(read(kInterruptLine, 1), 0x2bu);
}

TEST_F(ConfigSpaceTest, AccessesThatAreNoneReadOnesAndWriteNothing) {
  open();
  EXPECT_EQ(read(1, 2), 0xffffu);
  EXPECT_EQ(read(2, 4), 0xffffffffu);
  EXPECT_EQ(read(kBytes, 1), 0xffu);
  write(kCommand + 1, 0xffff, 2);
  write(kCommand, 0xffff, 3);
  EXPECT_EQ(read(kCommand, 2), 0u);
}

// [PCIe "PCI Express Capability Structure"]
TEST_F(ConfigSpaceTest, ThePcieCapabilityOffersFunctionLevelReset) {
  open();
  const std::uint32_t at = pcie_capability();
  ASSERT_NE(at, 0u);
  EXPECT_EQ(read(at + kPcieCapabilities, 2), 0x0092u) << "version 2, integrated endpoint";
  EXPECT_NE(DeviceCapabilities::FunctionLevelReset::get(read(at + kDeviceCapabilities)), 0u);
  EXPECT_NE(DeviceCapabilities::RoleBasedErrorReporting::get(read(at + kDeviceCapabilities)), 0u);
  EXPECT_EQ(read(at + kDeviceControl, 2), 0x2810u);
  EXPECT_NE(DeviceCapabilities2::EndEndTlpPrefix::get(read(at + kDeviceCapabilities2)), 0u);
  EXPECT_EQ(read(at + kDeviceStatus, 2), 0u);
  write(at + kDeviceControl, 0x00ff, 2);
  EXPECT_EQ(read(at + kDeviceControl, 2), 0x00ffu & ~0x0100u);
}

// [PCIe "PASID Extended Capability Structure"]
TEST_F(ConfigSpaceTest, ThePasidCapabilityOffersWhatTheOptionsSay) {
  open({.enabled = false, .pasid_bits = 12, .execute = true});
  const std::uint32_t at = pasid();
  EXPECT_EQ(at, kExtendedCapabilities);
  EXPECT_EQ(ExtendedCapability::Version::get(read(at)), 1u);
  EXPECT_EQ(read(at + kPasidCapability, 2), 0x0c02u);
  EXPECT_EQ(read(at + kPasidControl, 2), 0u);
  write(at + kPasidControl, 0xffff, 2);
  EXPECT_EQ(read(at + kPasidControl, 2), 0x3u) << "privileged mode is not offered";
  open({.enabled = false, .privileged = true});
  EXPECT_EQ(read(pasid() + kPasidCapability, 2), 0x1404u);
}

// [PCIe "ATS Extended Capability"]
TEST_F(ConfigSpaceTest, TheAtsCapabilityHasAUnitAndAnEnable) {
  open();
  const std::uint32_t at = ats();
  ASSERT_NE(at, 0u);
  EXPECT_EQ(read(at + kAtsCapability, 2), 0x0060u) << "depth 32, page-aligned, global";
  EXPECT_EQ(read(at + kAtsControl, 2), 0u);
  write(at + kAtsCapability, 0x8003'0000u | 0xffff);
  EXPECT_EQ(read(at + kAtsControl, 2), 0x8003u);
  EXPECT_EQ(read(at + kAtsCapability, 2), 0x0060u);
}

TEST_F(ConfigSpaceTest, PasidControlAndTheUnitStandWhileAtsIsEnabled) {
  open();
  write(pasid() + kPasidControl, 1, 2);
  write(ats() + kAtsControl, 0x8001, 2);
  write(pasid() + kPasidControl, 0, 2);
  write(ats() + kAtsControl, 0x8002, 2);
  EXPECT_EQ(read(pasid() + kPasidControl, 2), 1u);
  EXPECT_EQ(read(ats() + kAtsControl, 2), 0x8001u);
  write(ats() + kAtsControl, 0x0002, 2);
  EXPECT_EQ(read(ats() + kAtsControl, 2), 0x0002u);
  write(pasid() + kPasidControl, 0, 2);
  EXPECT_EQ(read(pasid() + kPasidControl, 2), 0u);
}

// [PCIe "Page Request Extended Capability Structure"]
TEST_F(ConfigSpaceTest, ThePageRequestCapabilityHasItsCapacityAndAllocation) {
  open({.page_request_capacity = 32, .enabled = false});
  const std::uint32_t at = page_request();
  ASSERT_NE(at, 0u);
  EXPECT_EQ(read(at + kPageRequestControl, 2), 0u);
  EXPECT_EQ(read(at + kPageRequestStatus, 2), 0x8100u) << "stopped; responses need a PASID";
  EXPECT_EQ(read(at + kPageRequestCapacity), 32u);
  EXPECT_EQ(read(at + kPageRequestAllocation), 0u);
  write(at + kPageRequestCapacity, 99);
  write(at + kPageRequestAllocation, 16);
  EXPECT_EQ(read(at + kPageRequestCapacity), 32u);
  EXPECT_EQ(read(at + kPageRequestAllocation), 16u);
  write(at + kPageRequestControl, 3, 2);
  EXPECT_EQ(read(at + kPageRequestControl, 2), 1u) << "Reset reads 0";
  EXPECT_EQ(read(at + kPageRequestStatus, 2), 0x8000u);
}

TEST_F(ConfigSpaceTest, CapabilitiesThatAreNotThereAreNotInTheList) {
  open({.pri = false, .enabled = false});
  EXPECT_EQ(page_request(), 0u);
  EXPECT_NE(ats(), 0u);
  open({.pasid = false, .ats = false, .pri = false, .enabled = false});
  EXPECT_EQ(read(kExtendedCapabilities), 0u);
  open({.pasid = false, .enabled = false});
  EXPECT_EQ(ats(), kExtendedCapabilities);
  EXPECT_EQ(DeviceCapabilities2::EndEndTlpPrefix::get(read(pcie_capability() + 0x24)), 0u);
  EXPECT_EQ(read(page_request() + kPageRequestStatus, 2), 0x0100u);
}

TEST_F(ConfigSpaceTest, ByDefaultEverythingIsEnabled) {
  open({});
  EXPECT_NE(Command::BusMasterEnable::get(read(kCommand, 2)), 0u);
  EXPECT_EQ(read(pasid() + kPasidControl, 2), 1u);
  EXPECT_EQ(read(ats() + kAtsControl, 2), 0x8000u);
  EXPECT_EQ(read(page_request() + kPageRequestControl, 2), 1u);
  EXPECT_EQ(read(page_request() + kPageRequestAllocation), 512u);
}

TEST_F(ConfigSpaceTest, OptionsThatNoFunctionHasAreRefused) {
  const auto refused = [&](Endpoint::Options options) {
    const auto made = Endpoint::create(bench_.iommu, DeviceId{9}, std::move(options));
    return !made && made.error() == std::make_error_code(std::errc::invalid_argument);
  };
  const auto region = std::make_shared<Scratch>();
  memory::Memory* const memory = &bench_.memory;
  EXPECT_TRUE(refused({.pasid_bits = 21}));
  EXPECT_TRUE(refused({.msi_vectors = 3}));
  EXPECT_TRUE(refused({.msi_vectors = 64}));
  EXPECT_TRUE(refused({.bars = {{4096, region}}}));
  EXPECT_TRUE(refused({.bars = {{4096, nullptr}}, .bar_memory = memory}));
  EXPECT_TRUE(refused({.bars = {{2048, region}}, .bar_memory = memory}));
  EXPECT_TRUE(refused({.bars = {{12288, region}}, .bar_memory = memory}));
  EXPECT_TRUE(refused({.bars = std::vector<Bar>(4, {4096, region}), .bar_memory = memory}));
}

// ---- what software has to enable --------------------------------------------------------------

TEST_F(ConfigSpaceTest, NothingIsSentBeforeSoftwareEnablesIt) {
  bench_.bind(kPasid);
  const std::uint64_t physical = bench_.allocate();
  Endpoint& device = open();
  std::array<std::byte, 8> word{};
  const auto reason = [&](std::optional<Pasid> space, std::uint64_t at) {
    const DmaResult result = device.space(space).read({at}, word);
    return result.fault ? std::optional(result.fault->reason) : std::nullopt;
  };
  bool asked = false;
  bench_.on_page_request = [&](const iommu::PageRequestRecord& record) {
    asked = true;
    bench_.map(kPasid, record.address(), physical);
    return iommu::PageResponse::Code::kSuccess;
  };
  EXPECT_EQ(reason(std::nullopt, physical), Reason::kDisabled);
  EXPECT_EQ(device.space(kPasid).map({kVa}, 8, Access::kRead).error().reason, Reason::kDisabled);
  EXPECT_EQ(bench_.iommu.stats().translations, 0u);

  write(kCommand, Command::BusMasterEnable::kMask, 2);
  EXPECT_EQ(reason(std::nullopt, physical), std::nullopt);
  EXPECT_EQ(reason(kPasid, kVa), Reason::kDisabled);
  write(pasid() + kPasidControl, 1, 2);
  EXPECT_EQ(reason(kPasid, kVa), Reason::kNotPermitted) << "untranslated: nothing there";
  write(ats() + kAtsControl, 0x8000, 2);
  EXPECT_EQ(reason(kPasid, kVa), Reason::kNoService);
  EXPECT_FALSE(asked);
  write(page_request() + kPageRequestControl, 1, 2);
  write(page_request() + kPageRequestAllocation, 8);
  EXPECT_EQ(reason(kPasid, kVa), std::nullopt);
  EXPECT_TRUE(asked);
  EXPECT_TRUE(device.space(kPasid).map({kVa}, 8, Access::kRead));
}

// [PCIe "Page Request Control Register"]
TEST_F(ConfigSpaceTest, EnablingPageRequestsAgainEndsAResponseFailure) {
  bench_.bind(kPasid);
  Endpoint& device = open({});
  std::array<std::byte, 8> word{};
  bench_.on_page_request = [](const auto&) { return iommu::PageResponse::Code::kResponseFailure; };
  EXPECT_FALSE(device.space(kPasid).read({kVa}, word).ok());
  const std::uint32_t status = page_request() + kPageRequestStatus;
  EXPECT_NE(read(status, 2) & PageRequestStatus::ResponseFailure::kMask, 0u);
  bench_.on_page_request = [&](const iommu::PageRequestRecord& record) {
    bench_.map(kPasid, record.address(), bench_.allocate());
    return iommu::PageResponse::Code::kSuccess;
  };
  EXPECT_EQ(device.space(kPasid).read({kVa}, word).fault->reason, Reason::kNoService);
  write(page_request() + kPageRequestControl, 0, 2);
  write(page_request() + kPageRequestControl, 1, 2);
  EXPECT_TRUE(device.space(kPasid).read({kVa}, word).ok());
}

TEST_F(ConfigSpaceTest, APasidWiderThanTheCapabilityIsNotSent) {
  bench_.bind(Pasid{15});
  bench_.bind(Pasid{16});
  const std::uint64_t physical = bench_.allocate();
  bench_.map(Pasid{15}, kVa, physical);
  bench_.map(Pasid{16}, kVa, physical);
  Endpoint& device = open({.pasid_bits = 4});
  std::array<std::byte, 8> word{};
  EXPECT_TRUE(device.space(Pasid{15}).read({kVa}, word).ok());
  EXPECT_EQ(device.space(Pasid{16}).read({kVa}, word).fault->reason, Reason::kDisabled);
}

TEST_F(ConfigSpaceTest, TakingAPermissionAwayEmptiesTheAtc) {
  bench_.bind(kPasid);
  bench_.map(kPasid, kVa, bench_.allocate());
  Endpoint& device = open({});
  std::array<std::byte, 8> word{};
  const auto reads = [&] { return device.space(kPasid).read({kVa}, word).ok(); };
  ASSERT_TRUE(reads());
  write(kCommand, 0, 2);
  EXPECT_FALSE(reads());
  EXPECT_FALSE(device.space(kPasid).copy_cached({kVa}, {kVa + 8}, 8));
  write(kCommand, Command::BusMasterEnable::kMask, 2);
  ASSERT_TRUE(reads());
  write(ats() + kAtsControl, 0, 2);
  const auto hits = device.stats().atc_hits;
  EXPECT_TRUE(reads()) << "untranslated";
  EXPECT_TRUE(reads());
  EXPECT_EQ(device.stats().atc_hits, hits);
  write(pasid() + kPasidControl, 0, 2);
  EXPECT_FALSE(reads());
}

// ---- BARs -------------------------------------------------------------------------------------

class BarTest : public ConfigSpaceTest {
 protected:
  Endpoint& open_with(std::vector<Bar> bars) {
    return open({.enabled = false, .bars = std::move(bars), .bar_memory = &bench_.memory});
  }
  bool decodes(std::uint64_t at) {
    std::array<std::byte, 4> word{};
    return bench_.memory.read({at}, word).ok() && word[0] == std::byte{0x77};
  }
  std::shared_ptr<Scratch> region_ = std::make_shared<Scratch>();
};

TEST_F(BarTest, SoftwareFindsTheSizeByWritingOnes) {
  open_with({{65536, region_, false, false}, {1 << 20, region_, true, true}});
  write(kBar0, 0xffffffff);
  EXPECT_EQ(read(kBar0), 0xffff0000u);
  write(kBar0 + 4, 0xffffffff);
  write(kBar0 + 8, 0xffffffff);
  EXPECT_EQ(read(kBar0 + 4), 0xfff0000cu) << "64 bits, prefetchable";
  EXPECT_EQ(read(kBar0 + 8), 0xffffffffu);
  write(kBar0 + 12, 0xffffffff);
  EXPECT_EQ(read(kBar0 + 12), 0u) << "not there";
}

TEST_F(BarTest, DecodesWhereSoftwarePlacesItWhileMemorySpaceIsEnabled) {
  open_with({{65536, region_}});
  write(kBar0, 0x4000'0000);
  write(kBar0 + 4, 0x12);
  EXPECT_FALSE(decodes(0x12'4000'0000));
  write(kCommand, Command::MemorySpaceEnable::kMask, 2);
  EXPECT_TRUE(decodes(0x12'4000'0000));
  EXPECT_TRUE(decodes(0x12'4000'fffc));
  EXPECT_FALSE(decodes(0x12'4001'0000));
  write(kBar0, 0x5000'0000);
  EXPECT_FALSE(decodes(0x12'4000'0000));
  EXPECT_TRUE(decodes(0x12'5000'0000));
  write(kCommand, 0, 2);
  EXPECT_FALSE(decodes(0x12'5000'0000));
  write(kCommand, Command::MemorySpaceEnable::kMask, 2);
  EXPECT_TRUE(endpoint_->reset());
  EXPECT_FALSE(decodes(0x12'5000'0000));
  EXPECT_EQ(read(kBar0 + 4), 0u);
}

TEST_F(BarTest, WrittenAgainItIsPlacedWhereSomethingElseWasInTheWay) {
  const auto other = bench_.memory.add_io({0x4000'0000}, 4096, std::make_shared<Scratch>());
  ASSERT_TRUE(other);
  open_with({{4096, region_, false}});
  write(kCommand, Command::MemorySpaceEnable::kMask, 2);
  write(kBar0, 0x4000'0000);
  ASSERT_TRUE(bench_.memory.remove(*other));
  EXPECT_FALSE(decodes(0x4000'0000));
  write(kBar0, 0x4000'0000);
  EXPECT_TRUE(decodes(0x4000'0000));
}

TEST_F(BarTest, DoesNotDecodeOverOtherMemoryAndGoesWithItsFunction) {
  open_with({{4096, region_, false}});
  write(kBar0, static_cast<std::uint32_t>(Bench::kArena));
  write(kCommand, Command::MemorySpaceEnable::kMask, 2);
  EXPECT_FALSE(decodes(Bench::kArena));
  write(kBar0, 0x4000'0000);
  EXPECT_TRUE(decodes(0x4000'0000));
  endpoint_.reset();
  EXPECT_FALSE(decodes(0x4000'0000));
}

}  // namespace
}  // namespace tandem::pcie
