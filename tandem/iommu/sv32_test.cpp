// SPDX-License-Identifier: Apache-2.0
// Schemes for addresses of 32 bits: Sv32, Sv32x4, and what chooses them.
#include <gtest/gtest.h>

#include "tandem/iommu/detail/directory.hpp"
#include "tandem/iommu/detail/second_stage.hpp"
#include "tandem/iommu/detail/test_walk.hpp"

namespace tandem::iommu::detail {
namespace {

using Tc = DeviceContext::Tc;
using Iohgatp = DeviceContext::Iohgatp;

constexpr std::uint64_t kNo32Bits =
    kAllCapabilities & ~(Capabilities::Sv32::kMask | Capabilities::Sv32x4::kMask);
constexpr std::uint64_t kWide = std::uint64_t{3} << 32;  // above 32 bits, below 34

ExtendedDeviceContext extended(const DeviceContext& context) { return {context, 0, 0, 0, 0}; }

// [iommu §3.1.4]
TEST(Sv32Contexts, SxlIsLegalAsGxlIs) {
  Config config(kAllCapabilities);
  DeviceContext narrow;
  narrow.tc = Tc::V::kMask | Tc::Sxl::kMask;
  DeviceContext wide;
  wide.tc = Tc::V::kMask;
  EXPECT_TRUE(well_formed(config, extended(narrow))) << "GXL is 0 and can be written";
  EXPECT_TRUE(well_formed(config, extended(wide)));
  config.fctl = static_cast<std::uint32_t>(Fctl::Gxl::kMask);
  EXPECT_TRUE(well_formed(config, extended(narrow)));
  EXPECT_FALSE(well_formed(config, extended(wide)));
  const Config fixed(kNo32Bits);
  EXPECT_FALSE(well_formed(fixed, extended(narrow)));
  EXPECT_TRUE(well_formed(fixed, extended(wide)));
}

// [iommu §3.1.3.4, §3.1.4, §3.2.4]
TEST(Sv32Contexts, WithSxlTheOnlyFirstStageIsSv32) {
  const Config all(kAllCapabilities);
  const Config without(kAllCapabilities & ~Capabilities::Sv32::kMask);
  for (std::uint64_t mode = 0; mode < 16; ++mode) {
    DeviceContext context;
    context.tc = Tc::V::kMask | Tc::Sxl::kMask;
    EXPECT_EQ(well_formed(all, context, ProcessContext{1, Fsc::Mode::make(mode)}),
              mode == 0 || mode == 8)
        << mode;
    EXPECT_EQ(well_formed(without, context, ProcessContext{1, Fsc::Mode::make(mode)}), mode == 0);
    context.fsc = Fsc::Mode::make(mode);
    EXPECT_EQ(well_formed(all, extended(context)), mode == 0 || mode == 8) << mode;
    EXPECT_EQ(well_formed(without, extended(context)), mode == 0) << mode;
  }
}

// [iommu §3.1.3.2, §3.1.4]
TEST(Sv32Contexts, WithGxlTheOnlySecondStageIsSv32x4) {
  Config all(kAllCapabilities);
  Config without(kAllCapabilities & ~Capabilities::Sv32x4::kMask);
  for (Config* const config : {&all, &without}) {
    config->fctl = static_cast<std::uint32_t>(Fctl::Gxl::kMask);
    for (std::uint64_t mode = 0; mode < 16; ++mode) {
      DeviceContext context;
      context.tc = Tc::V::kMask | Tc::Sxl::kMask;
      context.iohgatp = Iohgatp::Mode::make(mode);
      EXPECT_EQ(well_formed(*config, extended(context)), mode == 0 || (mode == 8 && config == &all))
          << mode;
    }
  }
}

// [iommu §3.1.3.6]
TEST(Sv32Contexts, AGuestAddressHas34BitsWhereSv32x4IsTheWidest) {
  constexpr std::uint64_t kWider =
      Capabilities::Sv39x4::kMask | Capabilities::Sv48x4::kMask | Capabilities::Sv57x4::kMask;
  const Config config(kAllCapabilities & ~kWider);
  ExtendedDeviceContext context = extended({});
  context.tc = Tc::V::kMask;
  for (unsigned bit = 0; bit < 52; ++bit) {
    context.msi_addr_mask = std::uint64_t{1} << bit;
    EXPECT_EQ(well_formed(config, context), bit < 34 - kPageShift) << bit;
  }
}

class Sv32Walk : public Board {
 protected:
  Sv32Walk() : Board(kAllCapabilities) {
    walk_.scheme = kSv32;
    walk_.root_ppn = allocate_page();
  }
  Result<Translation, Cause> run(std::uint64_t at, Access access = Access::kRead) {
    walk_.at = Iova{at};
    return walked(memory_, config_, walk_, access);
  }
  static constexpr std::uint64_t kAt = 0xfedc'babc;
  const Config config_{kAllCapabilities};
  Walk walk_;
};

// Privileged specification, "Sv32: Page-Based 32-bit Virtual-Memory Systems"
TEST_F(Sv32Walk, PagesHave4KiBOr4MiBAnywhereIn34Bits) {
  constexpr std::uint64_t kPpn = 0x3f'fc00;  // 22 bits
  for (const unsigned level : {0U, 1U}) {
    walk_.root_ppn = allocate_page();
    map(walk_.root_ppn, kSv32, kAt, kPpn, kLeaf, level);
    const auto found = run(kAt);
    ASSERT_TRUE(found.has_value()) << level;
    const unsigned log2_size = level == 0 ? 12 : 22;
    EXPECT_EQ(found->log2_size, log2_size);
    EXPECT_EQ(found->address.value,
              (kPpn << kPageShift) | (kAt & ((std::uint64_t{1} << log2_size) - 1)));
  }
}

TEST_F(Sv32Walk, NeighboursAreFourBytesApart) {
  map(walk_.root_ppn, kSv32, 0x1000, 0x40001);
  map(walk_.root_ppn, kSv32, 0x2000, 0x40002);
  EXPECT_EQ(run(0x1000)->address.value, 0x4000'1000U);
  EXPECT_EQ(run(0x2000)->address.value, 0x4000'2000U);
  EXPECT_EQ(pte_slot(walk_.root_ppn, kSv32, 0x2000) - pte_slot(walk_.root_ppn, kSv32, 0x1000), 4U);
}

TEST_F(Sv32Walk, ASuperpageIsAlignedTo4MiB) {
  map(walk_.root_ppn, kSv32, kAt, 0x200, kLeaf, 1);
  EXPECT_EQ(cause_of(run(kAt)), Cause::kReadPageFault);
  map(walk_.root_ppn, kSv32, kAt, 0x400, kLeaf, 1);
  EXPECT_TRUE(run(kAt).has_value());
}

// [iommu §3.1.3.1]
TEST_F(Sv32Walk, AnAddressAbove32BitsIsAPageFault) {
  map(walk_.root_ppn, kSv32, kAt, 0x400);
  EXPECT_TRUE(run(kAt).has_value()) << "bit 31 is no sign";
  for (const std::uint64_t high : {std::uint64_t{1} << 32, ~std::uint64_t{0xffff'ffff}}) {
    EXPECT_EQ(cause_of(run(high | kAt)), Cause::kReadPageFault);
    EXPECT_EQ(cause_of(run(high | kAt, Access::kWrite)), Cause::kWritePageFault);
  }
}

// [iommu §3.4]
TEST_F(Sv32Walk, AnUpdateLeavesTheEntryBeside) {
  walk_.updates_ad = true;
  map(walk_.root_ppn, kSv32, 0x1000, 0x40001, kLeaf & ~(Pte::A::kMask | Pte::D::kMask));
  map(walk_.root_ppn, kSv32, 0x0000, 0x40000, kLeaf & ~(Pte::A::kMask | Pte::D::kMask));
  const auto entry = [this](std::uint64_t at) {
    return load_entry(kSv32, pte_slot(walk_.root_ppn, kSv32, at)) & (Pte::A::kMask | Pte::D::kMask);
  };
  ASSERT_TRUE(run(0x1000).has_value());
  EXPECT_EQ(entry(0x1000), Pte::A::kMask);
  ASSERT_TRUE(run(0x1000, Access::kWrite)->writable);
  EXPECT_EQ(entry(0x1000), Pte::A::kMask | Pte::D::kMask);
  EXPECT_EQ(entry(0), 0U);
}

class Sv32x4Walk : public Board {
 protected:
  Sv32x4Walk() : Board(kAllCapabilities) {
    stage_.scheme = kSv32x4;
    stage_.root_ppn = allocate_pages_aligned(16384);
  }
  Result<GuestPage, GuestFault> run(std::uint64_t at) {
    TableReader reader(memory_);
    return translate_guest(reader, config_, stage_, at, {.read = true}, false);
  }
  const Config config_{kAllCapabilities};
  SecondStage stage_;
};

// [iommu §3.1.3.2] Privileged specification, "Guest-Physical Address Translation"
TEST_F(Sv32x4Walk, AGuestAddressHas34Bits) {
  constexpr std::uint64_t kTop = 0x3'ffff'f000;
  for (const unsigned level : {0U, 1U}) {
    stage_.root_ppn = allocate_pages_aligned(16384);
    map(stage_.root_ppn, kSv32x4, kTop, 0x3f'fc00, kLeaf, level);
    ASSERT_TRUE(run(kTop).has_value());
    EXPECT_EQ(run(kTop)->log2_size, level == 0 ? 12 : 22);
    EXPECT_EQ(run(std::uint64_t{1} << 34 | kTop).error(), GuestFault::kPageFault);
  }
}

// [iommu §3.1.3.1]
TEST_F(Sv32x4Walk, WithSxlAnyGuestAddressHas34Bits) {
  stage_.scheme = scheme_of(SecondStageMode::kSv39x4);
  constexpr std::uint64_t kAbove = std::uint64_t{1} << 34;
  map(stage_.root_ppn, stage_.scheme, kAbove, 0x40000);
  map(stage_.root_ppn, stage_.scheme, kAbove - kPageBytes, 0x40000);
  EXPECT_TRUE(run(kAbove).has_value());
  stage_.narrow = true;
  EXPECT_EQ(run(kAbove).error(), GuestFault::kPageFault);
  EXPECT_TRUE(run(kAbove - kPageBytes).has_value());
}

/// A device whose contexts have 32-bit addresses: Sv32, over Sv32x4 where `start_guest()` is used.
class Sv32Board : public Board {
 protected:
  Sv32Board() : Board(kAllCapabilities) {}

  void start_host() {
    start(Tc::Sxl::kMask);
    set_process(PdtpMode::kPd8, pdt_root_, kPasid, process_context(FirstStageMode::kSv32, root_));
  }
  void start_guest() {
    write(reg::kFctl, Fctl::Gxl::kMask | Fctl::Wsi::kMask);
    start(Tc::Sxl::kMask);
    set_process(PdtpMode::kPd8, pdt_root_, kPasid, process_context(FirstStageMode::kSv32, root_));
    guest_root_ = allocate_pages_aligned(16384);
    for (std::uint64_t at = kRamBase; at < kRamBase + kRamBytes; at += 4 << 20) {
      map(guest_root_, kSv32x4, at, at >> kPageShift, kLeaf, 1);
    }
    context_.iohgatp = Iohgatp::make(SecondStageMode::kSv32x4, guest_root_, 9);
    set_device(kDevice, context_);
    forget_contexts();
  }
  std::uint64_t guest_root_ = 0;
};

// [iommu §4.1.1]
TEST_F(Sv32Board, ASuperpageIsForgottenByAnyOfItsAddresses) {
  start_host();
  map(root_, kSv32, 0, 0x400, kLeaf, 1);
  for (const std::uint64_t named : {std::uint64_t{0}, std::uint64_t{0x3f'f000}}) {
    ASSERT_TRUE(translate(0x1000).has_value());
    ASSERT_TRUE(translate(0x1000).has_value());
    const auto hits = iommu_->stats().iotlb_hits;
    EXPECT_GT(hits, 0U);
    submit({iotinval_vma(named, kPscid)});
    ASSERT_TRUE(translate(0x1000).has_value());
    EXPECT_EQ(iommu_->stats().iotlb_hits, hits) << std::hex << named;
  }
}

// [iommu §3.6]
TEST_F(Sv32Board, AnAtsAnswerSaysThatASuperpageHas4MiB) {
  start_host();
  map(root_, kSv32, 0, 0x400, kLeaf, 1);
  for (int i = 0; i < 2; ++i) {
    const auto answer = port_->ats_translate({kPasid, false}, Iova{0x1000}, false);
    ASSERT_EQ(answer.status, AtsCompletion::Status::kSuccess);
    EXPECT_EQ(answer.translation.log2_size, 22);
    EXPECT_EQ(answer.translation.address.value, 0x40'1000U);
  }
}

// [iommu §6.26]
TEST_F(Sv32Board, ADebugRequestSaysThatASuperpageHas4MiB) {
  start_host();
  map(root_, kSv32, 0, 0x400, kLeaf, 1);
  write(reg::kTrReqIova, 0x1000, 8);
  write(reg::kTrReqCtl,
        TrReqCtl::Go::kMask | TrReqCtl::Nw::kMask | TrReqCtl::Pv::kMask |
            TrReqCtl::Pid::make(kPasid.value) | TrReqCtl::Did::make(kDevice.value),
        8);
  EXPECT_EQ(read(reg::kTrResponse, 8),
            TrResponse::S::make(1) | TrResponse::Ppn::make(0x400 | 0x1ff));
}

// [iommu §3.3]
TEST_F(Sv32Board, AnAddressGoesThroughBothStages) {
  start_guest();
  map(root_, kSv32, 0x1000, (kRamBase >> kPageShift) + 5);
  for (int i = 0; i < 2; ++i) {
    const auto found = translate(0x1abc, Access::kWrite);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->address.value, kRamBase + 0x5abc);
    EXPECT_EQ(found->log2_size, 12);
  }
  map(root_, kSv32, 0x1000, kWide >> kPageShift);
  submit({iotinval_vma(std::nullopt, std::nullopt, 9)});
  EXPECT_EQ(cause_of(translate(0x1abc)), Cause::kReadGuestPageFault);
  EXPECT_EQ(take_faults().at(0).iotval2, kWide | 0xabc);
}

// [iommu §3.1.4]
TEST_F(Sv32Board, ContextsFollowGxl) {
  start_guest();
  context_.tc &= ~Tc::Sxl::kMask;
  set_device(kDevice, context_);
  forget_contexts();
  EXPECT_EQ(cause_of(translate(0x1000)), Cause::kDdtMisconfigured);
  context_.tc |= Tc::Sxl::kMask;
  set_device(kDevice, context_);
  set_process(PdtpMode::kPd8, pdt_root_, kPasid, process_context(FirstStageMode::kSv48, root_));
  forget_contexts();
  EXPECT_EQ(cause_of(translate(0x1000)), Cause::kPdtMisconfigured);
}

// [iommu §6.4]
TEST(Sv32Registers, GxlCanBeWrittenWhereASchemeNeedsIt) {
  memory::Memory memory;
  for (const std::uint64_t offered : {kNo32Bits, kNo32Bits | Capabilities::Sv32::kMask,
                                      kNo32Bits | Capabilities::Sv32x4::kMask}) {
    Iommu iommu(memory, offered);
    EXPECT_EQ(Fctl::Gxl::get(iommu.mmio_read(reg::kFctl, 4)), 0U);
    iommu.mmio_write(reg::kFctl, Fctl::Gxl::kMask, 4);
    EXPECT_EQ(Fctl::Gxl::get(iommu.mmio_read(reg::kFctl, 4)), offered == kNo32Bits ? 0U : 1U);
    iommu.reset();
    EXPECT_EQ(Fctl::Gxl::get(iommu.mmio_read(reg::kFctl, 4)), 0U);
  }
}

}  // namespace
}  // namespace tandem::iommu::detail
