// SPDX-License-Identifier: Apache-2.0
// Writes to a guest's interrupt files, which an MSI page table redirects.
#include "tandem/iommu/detail/msi_translate.hpp"

#include <gtest/gtest.h>

#include <random>

#include "tandem/iommu/detail/directory.hpp"
#include "tandem/iommu/detail/second_stage.hpp"
#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

using Tc = DeviceContext::Tc;
using Msiptp = ExtendedDeviceContext::Msiptp;

constexpr Scheme kGuest = scheme_of(SecondStageMode::kSv39x4);

/// A guest's device whose addresses are guest physical ones. Bits 12 and 14 of an interrupt file's
/// address give its number.
class Msi : public Board {
 protected:
  static constexpr std::uint64_t kFiles = 0x7000'8000;
  static constexpr std::uint64_t kFile3 = kFiles | 5U << kPageShift;
  static constexpr std::uint64_t kImsicPpn = 0x2'8003;
  static constexpr std::uint32_t kGscid = 9;

  explicit Msi(std::uint64_t capabilities = kAllCapabilities) : Board(capabilities) {
    enable_queues();
    set_ddtp(Ddtp::ModeValue::k1Lvl);
    guest_root_ = allocate_pages_aligned(16384);
    table_ = allocate_page();
    context_.tc = Tc::V::make(1) | Tc::EnAts::make(1);
    context_.iohgatp = DeviceContext::Iohgatp::make(SecondStageMode::kSv39x4, guest_root_, kGscid);
    context_.msiptp = Msiptp::make_flat(table_);
    context_.msi_addr_mask = 5;
    context_.msi_addr_pattern = kFiles >> kPageShift;
    write_context();
    set_entry(MsiPte::basic(kImsicPpn));
  }
  void write_context() {
    set_device(kDevice, context_);
    submit({iodir_inval_ddt(std::nullopt)});
  }
  /// Of kFile3.
  void set_entry(const MsiPte& entry) {
    store((table_ << kPageShift) + 3 * sizeof entry + 8, entry.words[1]);
    store((table_ << kPageShift) + 3 * sizeof entry, entry.words[0]);
    submit({iotinval_gvma(kGscid)});
  }
  Result<Translation, Cause> access(std::uint64_t at, Access access = Access::kWrite) {
    return port_->translate({}, Iova{at}, access);
  }
  AtsCompletion ask(std::uint64_t at) { return port_->ats_translate({}, Iova{at}, false); }

  std::uint64_t guest_root_ = 0;
  std::uint64_t table_ = 0;
};

// [iommu §3.3.3]
TEST(Extract, PacksTheBitsThatTheMaskSelects) {
  for (unsigned value = 0; value < 256; ++value) {
    const auto bit = [value](unsigned i) { return value >> i & 1; };
    EXPECT_EQ(extract(value, 0b1010'0110), bit(7) << 3 | bit(5) << 2 | bit(2) << 1 | bit(1));
  }
  EXPECT_EQ(extract(~std::uint64_t{0}, ~std::uint64_t{0}), ~std::uint64_t{0});
  EXPECT_EQ(extract(~std::uint64_t{0}, 0), 0U);
}

// [iommu §3.3.3]
TEST_F(Msi, AnInterruptFileIsWhereItsEntrySays) {
  for (int i = 0; i < 2; ++i) {  // the second from the IOTLB
    const auto found = access(kFile3 | 4);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->address.value, kImsicPpn << kPageShift | 4);
    EXPECT_EQ(found->log2_size, 12);
    EXPECT_TRUE(found->msi);
    EXPECT_TRUE(found->readable && found->writable);
    EXPECT_FALSE(found->executable || found->global);
  }
  EXPECT_EQ(iommu_->stats().iotlb_hits, 1U);
  EXPECT_TRUE(access(kFile3, Access::kRead).has_value());
}

// [iommu §3.1.3.6]
TEST_F(Msi, OtherPagesGoThroughTheSecondStage) {
  for (const std::uint64_t at : {kFiles - kPageBytes, kFiles | 2U << kPageShift, kFile3 | 0x10'0000,
                                 kFile3 ^ std::uint64_t{1} << 40}) {
    EXPECT_EQ(cause_of(access(at)), Cause::kWriteGuestPageFault) << std::hex << at;
  }
  context_.msiptp = 0;
  write_context();
  EXPECT_EQ(cause_of(access(kFile3)), Cause::kWriteGuestPageFault) << "no MSI page table";
}

// [iommu §3.3.3]
TEST_F(Msi, AnEntryThatCannotBeUsedSaysWhy) {
  const MsiPte good = MsiPte::basic(kImsicPpn);
  EXPECT_EQ(cause_of(access(kFiles)), Cause::kMsiPteNotValid);
  const auto with = [&](std::uint64_t changed) {
    set_entry({{good.words[0] ^ changed, 0}});
    return cause_of(access(kFile3));
  };
  EXPECT_EQ(with(MsiPte::V::kMask), Cause::kMsiPteNotValid);
  EXPECT_EQ(with(MsiPte::M::make(1)), Cause::kMsiPteMisconfigured) << "mode 2";
  EXPECT_EQ(with(MsiPte::M::make(3)), Cause::kMsiPteMisconfigured) << "mode 0";
  for (unsigned bit = 3; bit < 64; ++bit) {
    if (bit >= 10 && bit < 54) continue;
    EXPECT_EQ(with(std::uint64_t{1} << bit), Cause::kMsiPteMisconfigured) << bit;
  }
  set_entry({{good.words[0], ~std::uint64_t{0}}});
  EXPECT_TRUE(access(kFile3).has_value()) << "the second doubleword is software's";
  context_.msiptp = Msiptp::make_flat(kHolePpn);
  write_context();
  EXPECT_EQ(cause_of(access(kFile3)), Cause::kMsiPteLoadFault);
}

class MsiWithoutMrif : public Msi {
 protected:
  MsiWithoutMrif()
      : Msi(kAllCapabilities & ~(Capabilities::MsiMrif::kMask | Capabilities::AmoMrif::kMask)) {}
};

// [iommu §3.3.3]
TEST_F(MsiWithoutMrif, AnEntryInThatModeIsMisconfigured) {
  set_entry(MsiPte::mrif(0x8000'0200, kImsicPpn, 1));
  EXPECT_EQ(cause_of(access(kFile3)), Cause::kMsiPteMisconfigured);
}

// [iommu §3.3.3]
TEST_F(Msi, NothingIsExecutedFromAnInterruptFile) {
  EXPECT_EQ(cause_of(access(kFile3, Access::kExecute)), Cause::kInstructionAccessFault);
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].iotval, kFile3);
  EXPECT_EQ(faults[0].iotval2, 0U);
}

// [iommu §3.6]
TEST_F(Msi, AnAtsRequestIsAnsweredByTheKindOfItsFault) {
  const auto granted = ask(kFile3);
  EXPECT_EQ(granted.status, AtsCompletion::Status::kSuccess);
  EXPECT_EQ(granted.translation.address.value, kImsicPpn << kPageShift);
  EXPECT_TRUE(granted.translation.readable && granted.translation.writable);
  const auto nothing = ask(kFiles);
  EXPECT_EQ(nothing.status, AtsCompletion::Status::kSuccess);
  EXPECT_FALSE(nothing.translation.readable || nothing.translation.writable);
  EXPECT_TRUE(take_faults().empty());
  set_entry({{MsiPte::V::kMask, 0}});
  EXPECT_EQ(ask(kFile3).status, AtsCompletion::Status::kCompleterAbort);
  EXPECT_EQ(take_faults().at(0).cause(), Cause::kMsiPteMisconfigured);
}

// [iommu §3.1.3.1]
TEST_F(Msi, WithT2gpaTheEntryTranslatesTheTranslatedRequest) {
  context_.tc |= Tc::T2gpa::kMask;
  write_context();
  EXPECT_EQ(ask(kFile3).translation.address.value, kFile3);
  const auto found = port_->translated({}, PhysAddr{kFile3 | 4}, Access::kWrite);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->address.value, kImsicPpn << kPageShift | 4);
}

// [iommu §4.1.1]
TEST_F(Msi, GvmaMakesTheIommuReadTheEntryAgain) {
  ASSERT_TRUE(access(kFile3).has_value());
  set_entry(MsiPte::basic(kImsicPpn + 1));
  EXPECT_EQ(access(kFile3)->address.value, (kImsicPpn + 1) << kPageShift);
}

// [iommu §3.3]
TEST_F(Msi, ALargePageEndsBeforeTheInterruptFilesInIt) {
  map(guest_root_, kGuest, 0x4000'0000, 0x4'0000, kLeaf, 2);
  const auto found = access(kFile3 | 2U << kPageShift);
  ASSERT_TRUE(found.has_value());
  EXPECT_FALSE(found->msi);
  EXPECT_EQ(found->address.value, kFile3 | 2U << kPageShift);
  EXPECT_EQ(found->log2_size, 13) << "bits 12 and 14 of a file's number, bit 13 is not";
  EXPECT_EQ(access(kFile3)->address.value, kImsicPpn << kPageShift) << "not from the page cached";
  EXPECT_EQ(access(0x4000'0000)->log2_size, 29);
}

// [iommu §3.3]
TEST(WithoutInterruptFiles, IsTheLargestRangeThatHoldsNone) {
  EXPECT_EQ(without_interrupt_files({}, 0x1000, 30), 30U) << "there are none";
  std::mt19937_64 random(1);
  for (int round = 0; round < 2000; ++round) {
    ExtendedDeviceContext context;
    context.msiptp = Msiptp::make_flat(1);
    context.msi_addr_mask = random() & 0x3ff;
    context.msi_addr_pattern = random() & 0x3ff;
    const std::uint64_t address = (random() & 0x3ff) << kPageShift;
    if (is_interrupt_file(context, address)) continue;
    const unsigned limit = 12 + static_cast<unsigned>(random() % 11);
    const unsigned log2_size = without_interrupt_files(context, address, limit);
    const auto holds_one = [&](unsigned log2) {
      const std::uint64_t base = address >> log2 << log2;
      for (std::uint64_t at = base; at < base + (std::uint64_t{1} << log2); at += kPageBytes) {
        if (is_interrupt_file(context, at)) return true;
      }
      return false;
    };
    EXPECT_FALSE(holds_one(log2_size));
    EXPECT_TRUE(log2_size == limit || holds_one(log2_size + 1));
  }
}

// [iommu §3.1.4]
TEST(MsiConfiguration, MustBeOneThatIsDefined) {
  const Config all(kAllCapabilities);
  ExtendedDeviceContext good;
  good.tc = Tc::V::kMask;
  good.iohgatp = DeviceContext::Iohgatp::make(SecondStageMode::kSv39x4, 4, 1);
  good.msiptp = Msiptp::make_flat(1);
  good.msi_addr_mask = good.msi_addr_pattern = (std::uint64_t{1} << 47) - 1;  // 59-bit addresses
  EXPECT_TRUE(well_formed(all, good));
  for (unsigned bit = 47; bit < 64; ++bit) {
    ExtendedDeviceContext context = good;
    context.msi_addr_mask |= std::uint64_t{1} << bit;
    EXPECT_FALSE(well_formed(all, context)) << "mask " << bit;
    context = good;
    context.msi_addr_pattern |= std::uint64_t{1} << bit;
    EXPECT_FALSE(well_formed(all, context)) << "pattern " << bit;
  }
  for (unsigned bit = 0; bit < 64; ++bit) {
    ExtendedDeviceContext context = good;
    context.reserved |= std::uint64_t{1} << bit;
    EXPECT_FALSE(well_formed(all, context)) << "last doubleword " << bit;
    context = good;
    context.msiptp ^= std::uint64_t{1} << bit;
    EXPECT_EQ(well_formed(all, context), bit < 44 || bit == 60) << "msiptp " << bit;
  }
  good.iohgatp = 0;
  EXPECT_FALSE(well_formed(all, good)) << "no second stage";
  good.msiptp = 0;
  EXPECT_TRUE(well_formed(all, good));
}

// [iommu §3.1.3.6]
TEST(MsiConfiguration, TheMaskIsAsWideAsTheWidestGuestAddress) {
  using C = Capabilities;
  const auto widest = [](std::uint64_t without) {
    const Config config(kAllCapabilities & ~without);
    ExtendedDeviceContext context;
    context.tc = Tc::V::kMask;
    context.iohgatp = DeviceContext::Iohgatp::make(SecondStageMode::kSv39x4, 4, 1);
    context.msiptp = Msiptp::make_flat(1);
    unsigned bits = 0;
    for (; bits < 52; ++bits) {
      context.msi_addr_mask = std::uint64_t{1} << bits;
      if (!well_formed(config, context)) break;
    }
    return bits + kPageShift;
  };
  EXPECT_EQ(widest(0), 59U);
  EXPECT_EQ(widest(C::Sv57x4::kMask), 50U);
  EXPECT_EQ(widest(C::Sv57x4::kMask | C::Sv48x4::kMask), 41U);
}

}  // namespace
}  // namespace tandem::iommu::detail
