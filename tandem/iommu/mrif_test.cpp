// SPDX-License-Identifier: Apache-2.0
// Interrupt files in memory, which take a guest's MSIs while it does not run.
#include "tandem/iommu/detail/mrif.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

using Tc = DeviceContext::Tc;

/// A guest's device with one interrupt file, at kFile.
class MrifTest : public Board {
 protected:
  static constexpr std::uint64_t kFile = 0x7000'8000;
  static constexpr std::uint32_t kNid = 0x5a5;

  MrifTest() : Board(kAllCapabilities) {
    enable_queues();
    set_ddtp(Ddtp::ModeValue::k1Lvl);
    const std::uint64_t guest_root = allocate_pages_aligned(16384);
    table_ = allocate_page() << kPageShift;
    mrif_ = (allocate_page() << kPageShift) + 512;
    notice_ = allocate_page() << kPageShift;
    context_.tc = Tc::V::make(1) | Tc::EnAts::make(1);
    context_.iohgatp = DeviceContext::Iohgatp::make(SecondStageMode::kSv39x4, guest_root, 9);
    context_.msiptp = ExtendedDeviceContext::Msiptp::make_flat(table_ >> kPageShift);
    context_.msi_addr_pattern = kFile >> kPageShift;
    set_device(kDevice, context_);
    set_entry(MsiPte::mrif(mrif_, notice_ >> kPageShift, kNid));
  }
  void set_entry(const MsiPte& entry) {
    store(table_ + 8, entry.words[1]);
    store(table_, entry.words[0]);
  }
  Result<Translation, Cause> access(Access access = Access::kWrite) {
    return port_->translate({}, Iova{kFile}, access);
  }
  Result<void, Cause> write_msi(std::uint32_t data, std::uint64_t offset = 0) {
    return port_->write_msi({}, file(), Iova{kFile + offset}, data);
  }
  Mrif file() {
    Mrif mrif;
    EXPECT_TRUE(port_->translate({}, Iova{kFile}, Access::kWrite, &mrif)->mrif);
    return mrif;
  }
  std::uint64_t take_notice() {
    const std::uint64_t notice = load(notice_);
    store(notice_, 0);
    return notice;
  }
  std::uint64_t pending(std::uint64_t word) { return load(mrif_ + word * 16); }

  std::uint64_t table_ = 0;
  std::uint64_t mrif_ = 0;
  std::uint64_t notice_ = 0;
};

// [iommu §8.4]
TEST_F(MrifTest, PoisonHasACauseInTheTableAndOneInTheFile) {
  for (const std::uint64_t at : {table_, table_ + 8}) {
    ASSERT_TRUE(memory_.set_poison(PhysAddr{at}, 8).has_value());
    EXPECT_EQ(cause_of(access()), Cause::kMsiPtCorrupt);
    EXPECT_EQ(take_faults().at(0).cause(), Cause::kMsiPtCorrupt);
    ASSERT_TRUE(memory_.clear_poison(PhysAddr{at}, 8).has_value());
  }
  ASSERT_TRUE(memory_.set_poison(PhysAddr{mrif_}, 8).has_value());
  EXPECT_EQ(write_msi(5).error(), Cause::kMsiMrifCorrupt);
  EXPECT_EQ(take_faults().at(0).cause(), Cause::kMsiMrifCorrupt);
  ASSERT_TRUE(memory_.clear_poison(PhysAddr{mrif_}, 8).has_value());
  EXPECT_TRUE(write_msi(5).has_value());
}

// [iommu §3.3.3]
TEST_F(MrifTest, ATranslationNamesTheFileAndTheNotice) {
  for (int i = 0; i < 2; ++i) {
    Mrif mrif;
    const auto found = port_->translate({}, Iova{kFile}, Access::kWrite, &mrif);
    ASSERT_TRUE(found.has_value());
    EXPECT_TRUE(found->msi && found->mrif);
    EXPECT_EQ(mrif.file.value, mrif_);
    EXPECT_EQ(mrif.notice.value, notice_);
    EXPECT_EQ(mrif.notice_data, kNid);
    EXPECT_FALSE(memory_.load32(found->address, std::memory_order_relaxed).has_value())
        << "whoever overlooks the file reaches nothing";
  }
  EXPECT_EQ(iommu_->stats().iotlb_hits, 0U) << "not cached";
  EXPECT_EQ(cause_of(access(Access::kExecute)), Cause::kInstructionAccessFault);
}

// [iommu §3.3.3]
TEST_F(MrifTest, AnyReservedBitIsMisconfigured) {
  const MsiPte good = MsiPte::mrif(mrif_, notice_ >> kPageShift, kNid);
  for (unsigned bit = 3; bit < 128; ++bit) {
    MsiPte entry = good;
    entry.words[bit / 64] ^= std::uint64_t{1} << (bit % 64);
    set_entry(entry);
    const bool defined = (bit >= 7 && bit < 54) || (bit >= 64 && bit < 64 + 54) || bit == 64 + 60;
    EXPECT_EQ(access().has_value(), defined) << bit;
  }
}

// [iommu §3.6]
TEST_F(MrifTest, AnAtsRequestIsToldToComeUntranslated) {
  const auto answer = port_->ats_translate({}, Iova{kFile}, false);
  EXPECT_EQ(answer.status, AtsCompletion::Status::kSuccess);
  EXPECT_TRUE(answer.untranslated_only);
  EXPECT_TRUE(answer.translation.readable && answer.translation.writable);
}

// [aia] "MSI PTE, MRIF mode"
TEST_F(MrifTest, AnMsiBecomesPendingAndIsNotified) {
  for (const std::uint32_t identity : {0U, 1U, 63U, 64U, 2047U}) {
    ASSERT_TRUE(write_msi(identity).has_value());
    EXPECT_EQ(pending(identity / 64) >> (identity % 64) & 1, 1U) << identity;
    EXPECT_EQ(take_notice(), kNid);
  }
  EXPECT_EQ(pending(0), 1U << 1 | 1U | std::uint64_t{1} << 63) << "others stay";
  EXPECT_EQ(load(mrif_ + 8), 0U) << "enable bits are software's";
}

// [aia] "MSI PTE, MRIF mode"
TEST_F(MrifTest, WhatIsNoMsiIsDiscarded) {
  EXPECT_TRUE(write_msi(2048).has_value());
  EXPECT_TRUE(write_msi(1, 4).has_value()) << "big-endian";
  EXPECT_TRUE(write_msi(1, 8).has_value());
  EXPECT_EQ(write_msi(1, 2).error(), Cause::kWriteAddressMisaligned);
  for (std::uint64_t word = 0; word < 32; ++word) EXPECT_EQ(pending(word), 0U);
  EXPECT_EQ(take_notice(), 0U);
  EXPECT_TRUE(take_faults().empty());
}

// [iommu §4.2]
TEST_F(MrifTest, AFileThatIsNotThereIsAFault) {
  set_entry(MsiPte::mrif(kHolePpn << kPageShift, notice_ >> kPageShift, kNid));
  EXPECT_EQ(write_msi(1).error(), Cause::kMrifAccessFault);
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].cause(), Cause::kMrifAccessFault);
  EXPECT_EQ(faults[0].type(), TransactionType::kUntranslatedWrite);
  EXPECT_EQ(faults[0].iotval, kFile);
  EXPECT_EQ(take_notice(), 0U);
}

// [iommu §4.2]
TEST_F(MrifTest, ANoticeThatReachesNothingIsReported) {
  set_entry(MsiPte::mrif(mrif_, kHolePpn, kNid));
  EXPECT_TRUE(write_msi(1).has_value()) << "the MSI was stored";
  EXPECT_EQ(pending(0), 2U);
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].cause(), Cause::kIommuMsiWriteFault);
  EXPECT_EQ(faults[0].type(), TransactionType::kNone);
  EXPECT_EQ(faults[0].device_id(), 0U);
  EXPECT_EQ(faults[0].iotval, kHolePpn << kPageShift);
}

// [aia] "MSI PTE, MRIF mode"
TEST_F(MrifTest, NoMsiIsLostWhenSeveralArriveAtOnce) {
  constexpr std::uint32_t kThreads = 4;
  const Mrif mrif = file();
  for (int round = 0; round < 20; ++round) {
    std::vector<std::thread> threads;
    for (std::uint32_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (std::uint32_t identity = t; identity < 2048; identity += kThreads) {
          EXPECT_TRUE(port_->write_msi({}, mrif, Iova{kFile}, identity).has_value());
        }
      });
    }
    for (auto& thread : threads) thread.join();
    for (std::uint64_t word = 0; word < 32; ++word) {
      EXPECT_EQ(pending(word), ~std::uint64_t{0}) << word;
      store(mrif_ + word * 16, 0);
    }
  }
}

}  // namespace
}  // namespace tandem::iommu::detail
