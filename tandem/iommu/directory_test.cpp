// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/directory.hpp"

#include <gtest/gtest.h>

#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

const Config kHost(kHostCapabilities);

ExtendedDeviceContext extended(const DeviceContext& context) { return {context, 0, 0, 0, 0}; }

using Tc = DeviceContext::Tc;

class Directory : public Board {
 protected:
  static DeviceContext valid_context() {
    DeviceContext context;
    context.tc = Tc::V::make(1);
    return context;
  }
  Result<Translation, Cause> translate_as(std::uint32_t device) {
    FakeDevice callbacks;
    const auto port = std::move(*iommu_->attach(DeviceId{device}, callbacks));
    return port->translate({}, Iova{0x1000}, Access::kRead);
  }
};

// [iommu §3]
TEST_F(Directory, ADeviceIdIsSplitAsTheBaseFormatSays) {
  EXPECT_EQ(Ddi::index(0, 0xffffff), 0x7fU);
  EXPECT_EQ(Ddi::index(1, 0xffffff), 0x1ffU);
  EXPECT_EQ(Ddi::index(2, 0xffffff), 0xffU);
  EXPECT_EQ(Ddi::index(1, 0x80), 1U);
  EXPECT_EQ(Ddi::index(2, 0x10000), 1U);
  EXPECT_EQ(Pdi::index(0, 0xfffff), 0xffU);
  EXPECT_EQ(Pdi::index(1, 0x100), 1U);
  EXPECT_EQ(Pdi::index(2, 0x20000), 1U);
}

// [iommu §3.3.1]
TEST_F(Directory, EveryNumberOfLevelsFindsTheDevice) {
  enable_queues();
  for (const auto& [mode, id] : {std::pair{Ddtp::ModeValue::k1Lvl, 0x7fU},
                                 {Ddtp::ModeValue::k2Lvl, 0xfedcU},
                                 {Ddtp::ModeValue::k3Lvl, 0xabcdefU}}) {
    ddt_root_ = 0;
    write(reg::kDdtp, 0, 8);
    set_ddtp(mode);
    EXPECT_FALSE(translate_as(id).has_value());
    set_device(DeviceId{id}, {valid_context()});
    EXPECT_TRUE(translate_as(id).has_value());
  }
}

// [iommu §3.3]
TEST_F(Directory, ADeviceIdWiderThanTheModeIsBlocked) {
  enable_queues();
  set_ddtp(Ddtp::ModeValue::k1Lvl);
  EXPECT_EQ(cause_of(translate_as(0x80)), Cause::kTtypeBlocked);
  write(reg::kDdtp, 0, 8);
  set_ddtp(Ddtp::ModeValue::k2Lvl);
  EXPECT_EQ(cause_of(translate_as(0x10000)), Cause::kTtypeBlocked);
  EXPECT_EQ(cause_of(translate_as(0x80)), Cause::kDdtNotValid);
}

// [iommu §3.3.1]
TEST_F(Directory, DdtEntriesReportWhyTheyCannotBeUsed) {
  enable_queues();
  set_ddtp(Ddtp::ModeValue::k2Lvl);
  const std::uint64_t entry_at = (ddt_root_ << kPageShift) + Ddi::index(1, 0x80) * 8;
  EXPECT_EQ(cause_of(translate_as(0x80)), Cause::kDdtNotValid);
  for (const unsigned bit : {1U, 9U, 54U, 63U}) {
    store(entry_at, DirectoryEntry::make(allocate_page()) | std::uint64_t{1} << bit);
    EXPECT_EQ(cause_of(translate_as(0x80)), Cause::kDdtMisconfigured) << bit;
  }
  store(entry_at, DirectoryEntry::make(kHolePpn));
  EXPECT_EQ(cause_of(translate_as(0x80)), Cause::kDdtLoadFault);
  write(reg::kDdtp, 0, 8);
  write(reg::kDdtp, Ddtp::make(Ddtp::ModeValue::k2Lvl, kHolePpn), 8);
  EXPECT_EQ(cause_of(translate_as(0x80)), Cause::kDdtLoadFault);
}

// [iommu §3.1.4]
TEST_F(Directory, AnyReservedBitOfADeviceContextIsMisconfigured) {
  ASSERT_TRUE(well_formed(kHost, extended(valid_context())));
  const auto one_bit_bad = [](std::uint64_t DeviceContext::*word, unsigned bit) {
    DeviceContext context = valid_context();
    context.*word |= std::uint64_t{1} << bit;
    return !well_formed(kHost, extended(context));
  };
  for (unsigned bit = 0; bit < 64; ++bit) {
    const bool reserved_tc = (bit >= 12 && bit < 24) || bit >= 32;
    if (reserved_tc) {
      EXPECT_TRUE(one_bit_bad(&DeviceContext::tc, bit)) << "tc " << bit;
    }
    if (bit >= 24 && bit < 32) {  // designated for custom use
      EXPECT_FALSE(one_bit_bad(&DeviceContext::tc, bit)) << "tc " << bit;
    }
    // QOSID is 0: RCID and MCID are reserved too.
    EXPECT_EQ(one_bit_bad(&DeviceContext::ta, bit), bit < 12 || bit >= 32) << "ta " << bit;
    if (bit >= 44 && bit < 60) {
      EXPECT_TRUE(one_bit_bad(&DeviceContext::fsc, bit)) << "fsc " << bit;
    }
  }
}

// [iommu §3.1.4]
TEST_F(Directory, InconsistentTranslationControlIsMisconfigured) {
  const auto ok = [](std::uint64_t tc) {
    DeviceContext context;
    context.tc = Tc::V::kMask | tc;
    return well_formed(kHost, extended(context));
  };
  EXPECT_TRUE(ok(Tc::EnAts::kMask));
  EXPECT_TRUE(ok(Tc::EnAts::kMask | Tc::EnPri::kMask));
  EXPECT_TRUE(ok(Tc::EnAts::kMask | Tc::EnPri::kMask | Tc::Prpr::kMask));
  EXPECT_TRUE(ok(Tc::Dtf::kMask | Tc::Gade::kMask | Tc::Sade::kMask));
  EXPECT_TRUE(ok(Tc::Pdtv::kMask | Tc::Dpe::kMask));
  EXPECT_FALSE(ok(Tc::EnPri::kMask)) << "page requests without ATS";
  EXPECT_FALSE(ok(Tc::EnAts::kMask | Tc::Prpr::kMask)) << "PRPR without EN_PRI";
  EXPECT_FALSE(ok(Tc::EnAts::kMask | Tc::T2gpa::kMask)) << "T2GPA is not supported";
  EXPECT_FALSE(ok(Tc::Dpe::kMask)) << "DPE without PDTV";
  EXPECT_FALSE(ok(Tc::Sbe::kMask)) << "one endianness";
  EXPECT_FALSE(ok(Tc::Sxl::kMask)) << "GXL is 0 and fixed";
}

// [iommu §3.1.4]
TEST_F(Directory, OnlySupportedModesAreAccepted) {
  for (std::uint64_t mode = 0; mode < 16; ++mode) {
    DeviceContext context = valid_context();
    context.fsc = Fsc::Mode::make(mode);
    EXPECT_EQ(well_formed(kHost, extended(context)), mode == 0 || (mode >= 8 && mode <= 10))
        << "iosatp " << mode;
    context.tc |= Tc::Pdtv::kMask;
    EXPECT_EQ(well_formed(kHost, extended(context)), mode <= 3) << "pdtp " << mode;
    context = valid_context();
    context.iohgatp = DeviceContext::Iohgatp::Mode::make(mode);
    EXPECT_EQ(well_formed(kHost, extended(context)), mode == 0) << "iohgatp " << mode;
  }
}

// [iommu §3.1.4]
TEST_F(Directory, ASecondStageIsOneOfTheModesOfferedWithAnAlignedRoot) {
  for (const std::uint64_t offered : {kHostCapabilities, kAllCapabilities}) {
    const Config config(offered);
    for (std::uint64_t mode = 0; mode < 16; ++mode) {
      DeviceContext context = valid_context();
      context.iohgatp = DeviceContext::Iohgatp::Mode::make(mode);
      const bool exists = mode == 0 || (offered == kAllCapabilities && mode >= 8 && mode <= 10);
      EXPECT_EQ(well_formed(config, extended(context)), exists) << "iohgatp " << mode;
    }
  }
  const Config all(kAllCapabilities);
  DeviceContext context = valid_context();
  for (std::uint64_t ppn = 4; ppn < 9; ++ppn) {
    context.iohgatp = DeviceContext::Iohgatp::make(SecondStageMode::kSv48x4, ppn, 1);
    EXPECT_EQ(well_formed(all, extended(context)), ppn % 4 == 0) << ppn;
  }
}

// [iommu §3.1.4]
TEST_F(Directory, T2gpaNeedsASecondStage) {
  const Config all(kAllCapabilities);
  DeviceContext context = valid_context();
  context.tc |= Tc::EnAts::kMask | Tc::T2gpa::kMask;
  EXPECT_FALSE(well_formed(all, extended(context)));
  context.iohgatp = DeviceContext::Iohgatp::make(SecondStageMode::kSv39x4, 4, 1);
  EXPECT_TRUE(well_formed(all, extended(context)));
  EXPECT_FALSE(
      well_formed(Config(kAllCapabilities & ~Capabilities::T2gpa::kMask), extended(context)));
  context.tc &= ~Tc::EnAts::kMask;
  EXPECT_FALSE(well_formed(all, extended(context)));
}

// [iommu §3.1.4]
TEST_F(Directory, BitsOfWhatIsNotOfferedAreMisconfigured) {
  const Config no_ats(kHostCapabilities & ~Capabilities::Ats::kMask);
  const Config no_updates(kHostCapabilities & ~Capabilities::AmoHwad::kMask);
  DeviceContext context = valid_context();
  context.tc = Tc::V::kMask | Tc::EnAts::kMask;
  EXPECT_TRUE(well_formed(kHost, extended(context)));
  EXPECT_FALSE(well_formed(no_ats, extended(context)));
  for (const std::uint64_t bit : {Tc::Sade::kMask, Tc::Gade::kMask}) {
    context.tc = Tc::V::kMask | bit;
    EXPECT_TRUE(well_formed(kHost, extended(context)));
    EXPECT_FALSE(well_formed(no_updates, extended(context)));
  }
}

// [iommu §3.2.4]
TEST_F(Directory, AnyReservedBitOrModeOfAProcessContextIsMisconfigured) {
  for (unsigned bit = 1; bit < 64; ++bit) {
    ProcessContext context{1 | std::uint64_t{1} << bit, 0};
    EXPECT_EQ(well_formed(kHost, {}, context), bit < 3 || (bit >= 12 && bit < 32)) << "ta " << bit;
    if (bit >= 44 && bit < 60) {
      EXPECT_FALSE(well_formed(kHost, {}, ProcessContext{1, std::uint64_t{1} << bit}))
          << "fsc " << bit;
    }
  }
  for (std::uint64_t mode = 0; mode < 16; ++mode) {
    EXPECT_EQ(well_formed(kHost, {}, ProcessContext{1, Fsc::Mode::make(mode)}),
              mode == 0 || (mode >= 8 && mode <= 10));
  }
}

// [iommu §3.3.2]
TEST_F(Directory, EveryProcessDirectoryModeFindsTheProcess) {
  start();
  map(root_, 3, 0x1000, root_);
  for (const auto& [mode, pasid] : {std::pair{PdtpMode::kPd8, Pasid{0xff}},
                                    {PdtpMode::kPd17, Pasid{0x1ffff}},
                                    {PdtpMode::kPd20, Pasid{0xfffff}}}) {
    const std::uint64_t pdt = allocate_page();
    context_.fsc = Fsc::make(mode, pdt);
    set_device(kDevice, context_);
    const Requester requester{pasid, false};
    EXPECT_EQ(cause_of(port_->translate(requester, Iova{0x1000}, Access::kRead)),
              Cause::kPdtNotValid);
    set_process(mode, pdt, pasid, process_context(FirstStageMode::kSv39, root_));
    EXPECT_TRUE(port_->translate(requester, Iova{0x1000}, Access::kRead).has_value());
    submit({iodir_inval_ddt(kDevice.value), iofence_c({})});
  }
}

// [iommu §3.3]
TEST_F(Directory, AProcessIdWiderThanTheDirectoryIsBlocked) {
  start();
  for (const auto& [mode, pasid] :
       {std::pair{PdtpMode::kPd8, 0x100U}, {PdtpMode::kPd17, 0x20000U}}) {
    context_.fsc = Fsc::make(mode, pdt_root_);
    set_device(kDevice, context_);
    forget_contexts();
    EXPECT_EQ(cause_of(port_->translate({Pasid{pasid}, false}, Iova{0}, Access::kRead)),
              Cause::kTtypeBlocked);
  }
  EXPECT_EQ(cause_of(port_->translate({Pasid{kPasid.value | 1U << kPasidBits}, false}, Iova{0},
                                      Access::kRead)),
            Cause::kTtypeBlocked)
      << "a PASID of 21 bits is none";
}

// [iommu §3.3.2]
TEST_F(Directory, PdtEntriesReportWhyTheyCannotBeUsed) {
  start();
  const std::uint64_t pdt = allocate_page();
  context_.fsc = Fsc::make(PdtpMode::kPd17, pdt);
  set_device(kDevice, context_);
  const std::uint64_t entry_at = pdt << kPageShift;
  EXPECT_EQ(cause_of(translate(0x1000)), Cause::kPdtNotValid);
  store(entry_at, DirectoryEntry::make(allocate_page()) | 2);
  EXPECT_EQ(cause_of(translate(0x1000)), Cause::kPdtMisconfigured);
  store(entry_at, DirectoryEntry::make(kHolePpn));
  EXPECT_EQ(cause_of(translate(0x1000)), Cause::kPdtLoadFault);
  store(entry_at, DirectoryEntry::make(pdt_root_));
  EXPECT_EQ(cause_of(translate(0x1000)), Cause::kReadPageFault) << "the PC was found";
  set_process(PdtpMode::kPd8, pdt_root_, kPasid, {ProcessContext::Ta::V::kMask | 1U << 3, 0});
  forget_contexts();
  EXPECT_EQ(cause_of(translate(0x1000)), Cause::kPdtMisconfigured);
}

}  // namespace
}  // namespace tandem::iommu::detail
