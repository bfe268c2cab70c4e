// SPDX-License-Identifier: Apache-2.0
// Accesses that outlast the sections in which they were translated, and the fences that wait.
#include <gtest/gtest.h>

#include <chrono>
#include <mutex>
#include <optional>

#include "tandem/iommu/detail/test_board.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::iommu::detail {
namespace {

using namespace std::chrono_literals;

class HeldAccess : public Board {
 protected:
  static constexpr std::uint64_t kAt = 0x7000;
  static constexpr std::uint32_t kOtherPscid = kPscid + 1;
  static constexpr Pasid kOther{6};

  HeldAccess() : Board(Iommu::Options{.invalidation_timeout = 1h}) {
    start();
    const std::uint64_t other = allocate_page();
    set_process(PdtpMode::kPd8, pdt_root_, kOther,
                process_context(FirstStageMode::kSv39, other, 0, kOtherPscid));
    for (const std::uint64_t root : {root_, other}) {
      map(root, 3, kAt, allocate_page());
      map(root, 3, kAt + kPageBytes, allocate_page());
      map(root, 3, kSuperpage, allocate_pages_aligned(2U << 20), kLeaf, 1);
    }
  }
  static constexpr std::uint64_t kSuperpage = 2U << 20;
  /// Begins an access as a device does.
  Hold begin(std::uint64_t at = kAt, Pasid pasid = kPasid) {
    Leftover left;
    Hold hold;
    {
      const std::scoped_lock section(rcu::rcu_default_domain());
      EXPECT_TRUE(port_->translate_in_section({pasid, false}, Iova{at}, Access::kWrite, left));
      hold = port_->hold(left);
    }
    port_->finish({pasid, false}, left);
    return hold;
  }
  void invalidate(std::optional<std::uint64_t> at = std::nullopt, std::uint32_t pscid = kPscid) {
    submit({iotinval_vma(at, pscid), iofence_c({})});
  }
  static Iommu::TimePoint after_time_out() { return std::chrono::steady_clock::now() + 2h; }
};

// However the translation was found: by a walk, in the IOTLB, from a cached table, of a superpage.
TEST_F(HeldAccess, AFenceWaitsForTheAccessesWhoseTranslationsAreInvalidated) {
  const auto waits = [&](std::uint64_t at, auto invalidates) {
    Hold hold = begin(at);
    invalidates();
    EXPECT_FALSE(idle());
    EXPECT_EQ(error_bits(), 0U);
    hold = {};
    EXPECT_TRUE(idle()) << "who ends it goes on with the commands";
    EXPECT_EQ(error_bits(), 0U);
  };
  for (int found = 0; found < 2; ++found) {
    for (const std::uint64_t at : {kAt, kAt + kPageBytes, kSuperpage, kSuperpage + 0x1'2000}) {
      waits(at, [&] { invalidate(); });
      waits(at, [&] { invalidate(at); });
      (void)begin(at);
      waits(at, [&] { invalidate(at); });
      waits(at, [&] { submit({iodir_inval_ddt(kDevice.value), iofence_c({})}); });
      waits(at, [&] { submit({iodir_inval_pdt(kDevice.value, kPasid.value), iofence_c({})}); });
    }
  }
}

TEST_F(HeldAccess, HoldsUpNobodyElse) {
  const Hold other = begin(kAt, kOther);
  invalidate();
  EXPECT_TRUE(idle()) << "another address space";
  invalidate(kAt + kPageBytes, kOtherPscid);
  EXPECT_TRUE(idle()) << "another page";
  invalidate(kAt, kOtherPscid);
  EXPECT_FALSE(idle());
}

TEST_F(HeldAccess, OnesThatBeginBehindTheInvalidationAreNotWaitedFor) {
  Hold before = begin();
  invalidate();
  const Hold after = begin();
  EXPECT_FALSE(idle());
  before = {};
  EXPECT_TRUE(idle());
}

TEST_F(HeldAccess, TheLastOfSeveralEndsTheWait) {
  Hold first = begin(), second = begin(), moved = std::move(first);
  invalidate();
  second = {};
  first = {};
  EXPECT_FALSE(idle());
  moved = {};
  EXPECT_TRUE(idle());
}

TEST_F(HeldAccess, OneThatDoesNotEndTimesOutAndIsNotWaitedForAgain) {
  const Hold stuck = begin();
  EXPECT_EQ(iommu_->next_deadline(), std::nullopt);
  invalidate();
  ASSERT_TRUE(iommu_->next_deadline());
  iommu_->advance(*iommu_->next_deadline() - 1ns);
  EXPECT_EQ(error_bits(), 0U);
  iommu_->advance(after_time_out());
  EXPECT_EQ(error_bits(), Cqcsr::CmdTo::kMask);
  EXPECT_EQ(interrupts(Iommu::Interrupt::kCommandQueue), 1);
  EXPECT_FALSE(idle()) << "cqh references the fence";
  clear_errors();
  EXPECT_TRUE(idle());
  invalidate();
  EXPECT_TRUE(idle());
  EXPECT_EQ(error_bits(), 0U);
}

TEST_F(HeldAccess, RewritingCqtDoesNotPutOffTheTimeOut) {
  const Hold stuck = begin();
  invalidate();
  const auto deadline = iommu_->next_deadline();
  submit({iotinval_vma(std::nullopt, kOtherPscid)});
  EXPECT_EQ(iommu_->next_deadline(), deadline);
}

TEST_F(HeldAccess, EndedInASectionLetsTheQueueGoOnLater) {
  std::optional<Hold> hold = begin();
  invalidate();
  {
    const std::scoped_lock section(rcu::rcu_default_domain());
    hold.reset();
  }
  EXPECT_LE(*iommu_->next_deadline(), std::chrono::steady_clock::now());
  iommu_->advance();
  EXPECT_TRUE(idle());
}

TEST_F(HeldAccess, WithoutADirectoryEndsWithTheNextFenceBehindDdtp) {
  write(reg::kDdtp, Ddtp::make(Ddtp::ModeValue::kBare), 8);
  Leftover left;
  std::optional<Hold> hold;
  {
    const std::scoped_lock section(rcu::rcu_default_domain());
    EXPECT_TRUE(port_->translate_in_section({}, Iova{kAt}, Access::kRead, left));
    hold = port_->hold(left);
  }
  fence();
  EXPECT_TRUE(idle());
  set_ddtp(Ddtp::ModeValue::k1Lvl);
  fence();
  EXPECT_FALSE(idle());
  hold.reset();
  EXPECT_TRUE(idle());
}

}  // namespace
}  // namespace tandem::iommu::detail
