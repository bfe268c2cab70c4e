// SPDX-License-Identifier: Apache-2.0
// Structures in memory whose words are big-endian: those of fctl.BE, those of tc.SBE, or both.
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "tandem/iommu/detail/directory.hpp"
#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

using Tc = DeviceContext::Tc;
using Iohgatp = DeviceContext::Iohgatp;

constexpr std::uint64_t kFresh = Pte::V::kMask | Pte::R::kMask | Pte::W::kMask | Pte::U::kMask;
constexpr std::uint64_t kUpdated = kFresh | Pte::A::kMask | Pte::D::kMask;

/// fctl.BE, tc.SBE. A guest's device: its process directory and first stage are mapped where they
/// are.
class ByteOrder : public Board, public ::testing::WithParamInterface<std::tuple<bool, bool>> {
 protected:
  static constexpr std::uint64_t kIova = 0x12'3456'7abc;
  static constexpr std::uint64_t kInterruptFile = 0x7000'8000;

  ByteOrder() : Board(kAllCapabilities) {
    std::tie(big_endian_, process_big_endian_) = GetParam();
    write(reg::kFctl, Fctl::Be::make(big_endian_) | Fctl::Wsi::kMask);
    first_.big_endian = process_big_endian_;
    second_.big_endian = big_endian_;
    enable_queues();
    set_ddtp(Ddtp::ModeValue::k3Lvl);
    pdt_root_ = allocate_page();
    root_ = allocate_page();
    guest_root_ = allocate_pages_aligned(16384);
    msi_table_ = allocate_page();
    for (std::uint64_t at = kRamBase; at < kRamBase + kRamBytes; at += kPageBytes) {
      map(guest_root_, second_, at, at >> kPageShift, kFresh);
    }
    context_.tc = Tc::V::kMask | Tc::EnAts::kMask | Tc::EnPri::kMask | Tc::Pdtv::kMask |
                  Tc::Sade::kMask | Tc::Gade::kMask | Tc::Sbe::make(process_big_endian_);
    context_.fsc = Fsc::make(PdtpMode::kPd20, pdt_root_);
    context_.iohgatp = Iohgatp::make(SecondStageMode::kSv39x4, guest_root_, 9);
    context_.msiptp = ExtendedDeviceContext::Msiptp::make_flat(msi_table_);
    context_.msi_addr_pattern = kInterruptFile >> kPageShift;
    set_device(kDevice, context_);
    set_process(PdtpMode::kPd20, pdt_root_, kPasid, process_context(FirstStageMode::kSv39, root_));
    data_ = allocate_page();
    map(root_, first_, kIova, data_, kFresh);
  }

  Scheme first_ = scheme_of(FirstStageMode::kSv39);
  Scheme second_ = scheme_of(SecondStageMode::kSv39x4);
  std::uint64_t guest_root_ = 0;
  std::uint64_t msi_table_ = 0;
  std::uint64_t data_ = 0;
};

// [iommu §3.10]
TEST_P(ByteOrder, DirectoriesAndTablesOfBothStagesHaveTheirs) {
  const auto found = translate(kIova, Access::kWrite);
  ASSERT_TRUE(found.has_value()) << static_cast<unsigned>(found.error());
  EXPECT_EQ(found->address.value, data_ << kPageShift | (kIova & 0xfff));
}

// [iommu §3.4, §3.10]
TEST_P(ByteOrder, UpdatesKeepIt) {
  ASSERT_TRUE(translate(kIova, Access::kWrite).has_value());
  const std::uint64_t leaf = load_entry(first_, pte_slot(root_, first_, kIova));
  EXPECT_EQ(leaf, Pte::Ppn::make(data_) | kUpdated);
  const std::uint64_t guest =
      load_entry(second_, pte_slot(guest_root_, second_, data_ << kPageShift));
  EXPECT_EQ(guest, Pte::Ppn::make(data_) | kUpdated);
}

// [iommu §3.10]
TEST_P(ByteOrder, MsiPageTablesHaveThatOfTheDeviceDirectory) {
  map(root_, first_, kIova, kInterruptFile >> kPageShift);
  const MsiPte entry = MsiPte::basic(0x2'8003);
  store((msi_table_ << kPageShift) + 8, entry.words[1], big_endian_);
  store(msi_table_ << kPageShift, entry.words[0], big_endian_);
  const auto found = translate(kIova, Access::kWrite);
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(found->msi);
  EXPECT_EQ(found->address.value >> kPageShift, 0x2'8003U);
}

// [aia] "Format of a memory-resident interrupt file", "MSI PTE, MRIF mode"
TEST_P(ByteOrder, AMemoryResidentInterruptFileAndItsNoticeAreLittleEndian) {
  map(root_, first_, kIova & ~std::uint64_t{0xfff}, kInterruptFile >> kPageShift);
  const std::uint64_t file = allocate_page() << kPageShift;
  const std::uint64_t notice = allocate_page();
  const MsiPte entry = MsiPte::mrif(file, notice, 0x123);
  store((msi_table_ << kPageShift) + 8, entry.words[1], big_endian_);
  store(msi_table_ << kPageShift, entry.words[0], big_endian_);
  Mrif mrif;
  const Iova at{kIova & ~std::uint64_t{0xfff}};
  ASSERT_TRUE(port_->translate({kPasid}, at, Access::kWrite, &mrif).has_value());
  ASSERT_TRUE(port_->write_msi({kPasid}, mrif, at, 65).has_value());
  EXPECT_EQ(load(file + 16), 2U);
  EXPECT_EQ(load(notice << kPageShift), 0x123U);
}

// [iommu §4.1, §4.1.2]
TEST_P(ByteOrder, CommandsAndWhatAFenceStores) {
  const std::uint64_t at = allocate_page() << kPageShift;
  submit({iodir_inval_ddt(kDevice.value), iofence_c({.address = at, .data = 0x1234'5678})});
  EXPECT_TRUE(idle());
  EXPECT_EQ(error_bits(), 0U);
  EXPECT_EQ(load(at), in_byte_order(std::uint32_t{0x1234'5678}, big_endian_));
  EXPECT_TRUE(illegal(Command{{0x7f, 0}}));
}

// [iommu §4.2]
TEST_P(ByteOrder, FaultRecords) {
  EXPECT_EQ(cause_of(translate(0x5000)), Cause::kReadPageFault);
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].cause(), Cause::kReadPageFault);
  EXPECT_EQ(faults[0].iotval, 0x5000U);
}

// [iommu §4.3]
TEST_P(ByteOrder, PageRequestRecords) {
  PageRequest request;
  request.pasid = kPasid;
  request.address = Iova{0x7000};
  request.read = request.last = true;
  port_->page_request(request);
  const auto records = take_page_requests();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].payload & ~std::uint64_t{0xfff}, 0x7000U);
}

// [iommu §6.4, §6.29]
TEST_P(ByteOrder, MessagesOfTheIommuItself) {
  write(reg::kFqcsr, 0);
  write(reg::kCqcsr, 0);
  write(reg::kPqcsr, 0);
  write(reg::kDdtp, 0, 8);
  write(reg::kFctl, Fctl::Be::make(big_endian_));  // and messages, not wires
  const std::uint64_t at = allocate_page() << kPageShift;
  write(reg::kMsiAddress, at, 8);
  write(reg::kMsiData, 0x0102'0304);
  write(reg::kMsiControl, 0);
  write(reg::kFqcsr, Fqcsr::Fqen::make(1) | Fqcsr::Fie::make(1));
  EXPECT_FALSE(translate(kIova).has_value());
  EXPECT_EQ(load(at), in_byte_order(std::uint32_t{0x0102'0304}, big_endian_));
}

INSTANTIATE_TEST_SUITE_P(, ByteOrder, ::testing::Combine(::testing::Bool(), ::testing::Bool()),
                         [](const ::testing::TestParamInfo<std::tuple<bool, bool>>& one) {
                           return std::string(std::get<0>(one.param) ? "Big" : "Little") +
                                  (std::get<1>(one.param) ? "WithBigTables" : "WithLittleTables");
                         });

// [iommu §3.1.4]
TEST(ByteOrders, SbeIsLegalAsBeIs) {
  const auto legal = [](const Config& config, bool sbe) {
    ExtendedDeviceContext context;
    context.tc = Tc::V::kMask | Tc::Sbe::make(sbe);
    return well_formed(config, context);
  };
  const Config both(kAllCapabilities);
  EXPECT_TRUE(legal(both, false) && legal(both, true));
  constexpr std::uint64_t kOne = kAllCapabilities & ~Capabilities::End::kMask;
  const Config little(kOne);
  EXPECT_TRUE(legal(little, false) && !legal(little, true));
  const Config big(Iommu::Options{.capabilities = kOne, .big_endian = true});
  EXPECT_TRUE(legal(big, true) && !legal(big, false));
}

// [iommu §6.3, §6.4]
TEST(ByteOrders, BeIsFixedUnlessBothAreOffered) {
  memory::Memory memory;
  for (const bool big_endian : {false, true}) {
    for (const bool both : {false, true}) {
      const std::uint64_t offered = Capabilities::End::set(kAllCapabilities, both);
      Iommu iommu(memory, Iommu::Options{.capabilities = offered, .big_endian = big_endian});
      EXPECT_EQ(Fctl::Be::get(iommu.mmio_read(reg::kFctl, 4)), big_endian ? 1U : 0U);
      iommu.mmio_write(reg::kFctl, Fctl::Be::make(!big_endian), 4);
      EXPECT_EQ(Fctl::Be::get(iommu.mmio_read(reg::kFctl, 4)), both != big_endian ? 1U : 0U);
      iommu.reset();
      EXPECT_EQ(Fctl::Be::get(iommu.mmio_read(reg::kFctl, 4)), big_endian ? 1U : 0U);
    }
  }
}

}  // namespace
}  // namespace tandem::iommu::detail
