// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

using Status = AtsCompletion::Status;
using Tc = DeviceContext::Tc;
using Ta = ProcessContext::Ta;

class Translate : public Board {
 protected:
  Result<Translation, Cause> translate_plain(std::uint64_t iova, Access access = Access::kRead) {
    return port_->translate({}, Iova{iova}, access);
  }
  void write_context() {
    set_device(kDevice, context_);
    submit({iodir_inval_ddt(std::nullopt), iofence_c({})});
  }
};

// [iommu §3.3]
TEST_F(Translate, OffAllowsNothing) {
  EXPECT_EQ(cause_of(translate_plain(0)), Cause::kAllInboundDisallowed);
  EXPECT_EQ(port_->translated({}, PhysAddr{0}, Access::kRead).error(),
            Cause::kAllInboundDisallowed);
  EXPECT_EQ(port_->ats_translate({}, Iova{0}, false).status, Status::kUnsupportedRequest);
}

// [iommu §3.3]
TEST_F(Translate, BarePassesUntranslatedRequestsOnly) {
  write(reg::kDdtp, Ddtp::make(Ddtp::ModeValue::kBare), 8);
  const auto found = translate_plain(0x1234'5678, Access::kExecute);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->address.value, 0x1234'5678U);
  EXPECT_TRUE(found->readable && found->writable && found->executable);
  EXPECT_EQ(port_->translated({}, PhysAddr{0}, Access::kRead).error(), Cause::kTtypeBlocked);
  EXPECT_EQ(port_->ats_translate({}, Iova{0}, false).status, Status::kUnsupportedRequest);
  EXPECT_EQ(cause_of(translate_plain(std::uint64_t{1} << 56, Access::kWrite)),
            Cause::kWriteAccessFault)
      << "beyond PAS";
}

// [iommu §3.3]
TEST_F(Translate, WithoutAProcessDirectoryTheDeviceContextTranslates) {
  start();
  map(root_, 4, 0x5000, 0x91000);
  context_.tc = Tc::V::kMask;
  context_.ta = DeviceContext::Ta::Pscid::make(11);
  context_.fsc = Fsc::make(FirstStageMode::kSv48, root_);
  write_context();
  EXPECT_EQ(translate_plain(0x5678)->address.value, 0x9100'0678U);
  EXPECT_EQ(cause_of(translate(0x5000)), Cause::kTtypeBlocked) << "a PASID without PDTV";
  map(root_, 4, 0x5000, 0x92000);
  EXPECT_EQ(translate_plain(0x5678)->address.value, 0x9100'0678U) << "cached";
  submit({iotinval_vma(0x5000, 11), iofence_c({})});
  EXPECT_EQ(translate_plain(0x5678)->address.value, 0x9200'0678U);
}

// [iommu §3.3]
TEST_F(Translate, ABareFirstStagePassesTheAddress) {
  start();
  context_.tc = Tc::V::kMask;
  context_.fsc = 0;
  write_context();
  const auto found = translate_plain(0x7654'3210);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->address.value, 0x7654'3210U);
  EXPECT_GE(found->log2_size, 21) << "a large range is recommended";
  EXPECT_EQ(cause_of(translate_plain(std::uint64_t{1} << 60)), Cause::kReadAccessFault);
  context_.tc |= Tc::Pdtv::kMask;  // pdtp.MODE = Bare
  write_context();
  EXPECT_EQ(translate(0x1234)->address.value, 0x1234U);
}

// [iommu §3.3]
TEST_F(Translate, WithoutAPasidTheDefaultProcessIsUsedOnlyWithDpe) {
  start();
  const std::uint64_t root = allocate_page();
  set_process(PdtpMode::kPd8, pdt_root_, Pasid{0},
              process_context(FirstStageMode::kSv39, root, Ta::Ens::kMask));
  map(root, 3, 0x1000, 0x93000);
  EXPECT_EQ(translate_plain(0x1000)->address.value, 0x1000U) << "Bare";
  context_.tc |= Tc::Dpe::kMask;
  write_context();
  EXPECT_EQ(translate_plain(0x1000)->address.value, 0x9300'0000U);
  EXPECT_TRUE(port_->translate({std::nullopt, true}, Iova{0x1000}, Access::kRead).has_value())
      << "without a PASID there is no privilege";
  EXPECT_FALSE(translate_plain(0x2000).has_value());
  EXPECT_EQ(take_faults().at(0).process_id(), std::nullopt) << "the transaction had none";
  set_process(PdtpMode::kPd8, pdt_root_, Pasid{0}, {});
  submit({iodir_inval_pdt(kDevice.value, 0), iofence_c({})});
  EXPECT_EQ(cause_of(translate_plain(0x1000)), Cause::kPdtNotValid);
}

// [iommu §3.2.3.1]
TEST_F(Translate, SupervisorPrivilegeNeedsEns) {
  start();
  map(root_, 3, 0x1000, 0x90000);
  map(root_, 3, 0x2000, 0x90000, kLeaf & ~Pte::U::kMask);
  EXPECT_EQ(cause_of(translate(0x2000, Access::kRead, true)), Cause::kTtypeBlocked);
  const auto set_ta = [&](std::uint64_t bits) {
    set_process(PdtpMode::kPd8, pdt_root_, kPasid,
                process_context(FirstStageMode::kSv39, root_, bits));
    submit({iodir_inval_pdt(kDevice.value, kPasid.value), iofence_c({})});
  };
  set_ta(Ta::Ens::kMask);
  EXPECT_TRUE(translate(0x2000, Access::kRead, true).has_value());
  EXPECT_EQ(cause_of(translate(0x2000, Access::kRead, false)), Cause::kReadPageFault);
  EXPECT_EQ(cause_of(translate(0x1000, Access::kRead, true)), Cause::kReadPageFault);
  set_ta(Ta::Ens::kMask | Ta::Sum::kMask);
  EXPECT_TRUE(translate(0x1000, Access::kRead, true).has_value());
}

// [iommu §3.4]
TEST_F(Translate, AWriteAfterACachedReadSetsTheDirtyBit) {
  start(Tc::Sade::make(1));
  map(root_, 3, 0x1000, 0x90000, kLeaf & ~(Pte::A::kMask | Pte::D::kMask));
  const std::uint64_t at = pte_slot(root_, 3, 0x1000);
  ASSERT_TRUE(translate(0x1000).has_value());
  EXPECT_EQ(load(at) & (Pte::A::kMask | Pte::D::kMask), Pte::A::kMask);
  ASSERT_TRUE(translate(0x1000, Access::kWrite).has_value());
  EXPECT_EQ(load(at) & (Pte::A::kMask | Pte::D::kMask), Pte::A::kMask | Pte::D::kMask);
}

// [iommu §3.8]
TEST_F(Translate, AnInvalidEntryIsNeverCached) {
  start();
  EXPECT_FALSE(translate(0x1000).has_value());
  map(root_, 3, 0x1000, 0x90000);
  EXPECT_TRUE(translate(0x1000).has_value()) << "no invalidation is needed";
}

// [iommu §3.8]
TEST_F(Translate, AHitReadsNoTable) {
  start();
  map(root_, 3, 0x1000, 0x90000);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(translate(0x1000).has_value());
  const Stats stats = iommu_->stats();
  EXPECT_EQ(stats.translations, 5U);
  EXPECT_EQ(stats.iotlb_hits, 4U);
  EXPECT_EQ(stats.walks, 1U);
}

// [iommu §3.3]
TEST_F(Translate, TranslatedRequestsNeedAts) {
  start();
  for (int i = 0; i < 2; ++i) {  // the second from the IOTLB
    EXPECT_EQ(port_->translated({}, PhysAddr{0x8123'4567}, Access::kWrite)->address.value,
              0x8123'4567U);
  }
  EXPECT_EQ(port_->translated({}, PhysAddr{std::uint64_t{1} << 56}, Access::kRead).error(),
            Cause::kReadAccessFault);
  EXPECT_EQ(take_faults().at(0).type(), TransactionType::kTranslatedRead);
  context_.tc &= ~(Tc::EnAts::kMask | Tc::EnPri::kMask);
  write_context();
  EXPECT_EQ(port_->translated({}, PhysAddr{0x8123'4567}, Access::kWrite).error(),
            Cause::kTtypeBlocked);
  EXPECT_EQ(take_faults().at(0).type(), TransactionType::kTranslatedWrite);
}

// [iommu §3.3]
TEST_F(Translate, APasidOfATranslatedRequestNeedsAProcessDirectoryWithRoomForIt) {
  start();
  const PhysAddr at{0x8123'4567};
  EXPECT_TRUE(port_->translated({kPasid}, at, Access::kWrite).has_value());
  EXPECT_EQ(port_->translated({Pasid{256}}, at, Access::kWrite).error(), Cause::kTtypeBlocked)
      << "PD8";
  EXPECT_EQ(port_->translated({Pasid{1U << kPasidBits}}, at, Access::kWrite).error(),
            Cause::kTtypeBlocked);
  context_.tc &= ~Tc::Pdtv::kMask;
  context_.fsc = 0;
  write_context();
  EXPECT_TRUE(port_->translated({}, at, Access::kWrite).has_value());
  EXPECT_EQ(port_->translated({kPasid}, at, Access::kWrite).error(), Cause::kTtypeBlocked)
      << "nor by what is cached for requests without one";
}

// [iommu §4.2]
TEST_F(Translate, AFaultOfATranslatedRequestNamesItsPasid) {
  start();
  context_.tc &= ~(Tc::EnAts::kMask | Tc::EnPri::kMask);
  write_context();
  EXPECT_FALSE(port_->translated({kPasid, true}, PhysAddr{0x8123'4000}, Access::kRead).has_value());
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].process_id(), kPasid.value);
  EXPECT_TRUE(faults[0].privileged());
  EXPECT_EQ(faults[0].iotval, 0x8123'4000U);
}

class AtsTranslate : public Translate {
 protected:
  AtsCompletion ask(std::uint64_t iova, bool no_write = false, bool privileged = false) {
    return port_->ats_translate({kPasid, privileged}, Iova{iova}, no_write);
  }
  void expect_nothing_granted(const AtsCompletion& completion) {
    EXPECT_EQ(completion.status, Status::kSuccess);
    EXPECT_FALSE(completion.translation.readable || completion.translation.writable);
    EXPECT_TRUE(take_faults().empty());
  }
};

// [iommu §3.6]
TEST_F(AtsTranslate, ASuccessGrantsWhatTheTableAllows) {
  start();
  map(root_, 3, 0x20'0000, 0x90000, kLeaf | Pte::X::kMask | Pte::G::kMask, 1);
  map(root_, 3, 0x1000, 0x95000, kLeaf & ~Pte::W::kMask);
  for (int i = 0; i < 2; ++i) {
    const auto both = ask(0x23'4567);
    EXPECT_EQ(both.status, Status::kSuccess);
    EXPECT_TRUE(both.translation.readable && both.translation.writable);
    EXPECT_FALSE(both.translation.executable) << "not asked for";
    EXPECT_TRUE(both.translation.global);
    EXPECT_EQ(both.translation.log2_size, 21);
    EXPECT_EQ(both.translation.address.value, 0x9003'4567U);
    const auto read_only = ask(0x1000);
    EXPECT_EQ(read_only.status, Status::kSuccess);
    EXPECT_TRUE(read_only.translation.readable);
    EXPECT_FALSE(read_only.translation.writable);
  }
}

// [iommu §3.6]
TEST_F(AtsTranslate, NotPresentIsASuccessWithoutPermissionsAndWithoutAFault) {
  start(0, Ta::Ens::kMask);
  expect_nothing_granted(ask(0x1000));
  map(root_, 3, 0x1000, 0x90000, kLeaf & ~Pte::U::kMask);
  expect_nothing_granted(ask(0x1000));
  map(root_, 3, 0x2000, 0x90000);
  expect_nothing_granted(ask(0x2000, false, true));  // SUM is clear
  map(root_, 3, 0x3000, 0x90000, Pte::V::kMask | Pte::U::kMask | Pte::X::kMask | Pte::A::kMask);
  expect_nothing_granted(ask(0x3000));  // execute-only
  set_process(PdtpMode::kPd8, pdt_root_, kPasid, {});
  submit({iodir_inval_pdt(kDevice.value, kPasid.value), iofence_c({})});
  expect_nothing_granted(ask(0x1000));  // PDT entry not valid
}

// [iommu §3.6]
TEST_F(AtsTranslate, NoWriteLeavesTheDirtyBitAlone) {
  start(Tc::Sade::make(1));
  map(root_, 3, 0x1000, 0x90000, kLeaf & ~(Pte::A::kMask | Pte::D::kMask));
  const std::uint64_t at = pte_slot(root_, 3, 0x1000);
  const auto read = ask(0x1000, true);
  EXPECT_TRUE(read.translation.readable);
  EXPECT_FALSE(read.translation.writable) << "the device must ask again before it writes";
  EXPECT_EQ(load(at) & Pte::D::kMask, 0U);
  EXPECT_TRUE(ask(0x1000, false).translation.writable);
  EXPECT_NE(load(at) & Pte::D::kMask, 0U);
}

// [iommu §3.6]
TEST_F(AtsTranslate, ConfigurationErrorsAbortAndAreRecorded) {
  start();
  set_process(PdtpMode::kPd8, pdt_root_, kPasid, process_context(FirstStageMode::kSv39, kHolePpn));
  EXPECT_EQ(ask(0x1000).status, Status::kCompleterAbort);
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].cause(), Cause::kReadAccessFault);
  EXPECT_EQ(faults[0].type(), TransactionType::kAtsTranslationRequest);
  set_process(PdtpMode::kPd8, pdt_root_, kPasid, {Ta::V::kMask | 8, 0});
  forget_contexts();
  EXPECT_EQ(ask(0x1000).status, Status::kCompleterAbort);
  EXPECT_EQ(take_faults().at(0).cause(), Cause::kPdtMisconfigured);
  context_.fsc = Fsc::make(PdtpMode::kPd8, kHolePpn);
  write_context();
  EXPECT_EQ(ask(0x1000).status, Status::kCompleterAbort);
  EXPECT_EQ(take_faults().at(0).cause(), Cause::kPdtLoadFault);
}

// [iommu §3.6]
TEST_F(AtsTranslate, PermanentErrorsAreUnsupportedAndRecorded) {
  start();
  map(root_, 3, 0x1000, 0x90000);
  EXPECT_TRUE(translate(0x1000).has_value());
  context_.tc &= ~(Tc::EnAts::kMask | Tc::EnPri::kMask);
  write_context();
  EXPECT_TRUE(translate(0x1000).has_value());
  EXPECT_EQ(ask(0x1000).status, Status::kUnsupportedRequest)
      << "an entry for untranslated requests does not answer ATS";
  EXPECT_EQ(take_faults().at(0).cause(), Cause::kTtypeBlocked);
  store(device_slot(kDevice), 0);
  forget_contexts();
  EXPECT_EQ(ask(0x1000).status, Status::kUnsupportedRequest);
  EXPECT_EQ(take_faults().at(0).cause(), Cause::kDdtNotValid);
}

}  // namespace
}  // namespace tandem::iommu::detail
