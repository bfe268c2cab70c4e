// SPDX-License-Identifier: Apache-2.0
// Accesses that outlast the sections in which they were translated, and the fences that wait.
#include "tandem/iommu/detail/held_accesses.hpp"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

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

  explicit HeldAccess(std::chrono::nanoseconds timeout = 1h)
      : Board(Iommu::Options{.invalidation_timeout = timeout}) {
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
  bool is_busy() { return Ddtp::Busy::get(read(reg::kDdtp)) != 0; }
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

TEST_F(HeldAccess, AnAssignmentEndsTheOneBefore) {
  Hold hold = begin();
  invalidate();
  EXPECT_FALSE(idle());
  hold = begin();
  EXPECT_TRUE(idle());
  invalidate();
  EXPECT_FALSE(idle()) << "the one that was assigned lives";
  hold = {};
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

// [iommu §6.5]
TEST_F(HeldAccess, DdtpThatWasTurnedOffIsBusyUntilTheyAreOver) {
  Hold first = begin(), second = begin(kAt, kOther);
  EXPECT_FALSE(is_busy());
  write(reg::kDdtp, 0, 8);
  EXPECT_TRUE(is_busy());
  first = {};
  EXPECT_TRUE(is_busy());
  second = {};
  EXPECT_FALSE(is_busy());
  EXPECT_EQ(read(reg::kDdtp, 8), 0U);
  set_ddtp(Ddtp::ModeValue::k1Lvl);
  const Hold later = begin();
  EXPECT_FALSE(is_busy());
}

// [iommu §6.2]
TEST_F(HeldAccess, AResetWaitsForThoseThroughEarlierTranslations) {
  Hold hold = begin();
  std::atomic<bool> ended{false}, over{false};
  const std::jthread software([&] {
    iommu_->reset();
    EXPECT_TRUE(ended);
    over = true;
  });
  const auto until = std::chrono::steady_clock::now() + 20ms;  // for who does not wait
  while (!over && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  ended = true;
  hold = {};
}

class ImpatientHeldAccess : public HeldAccess {
 protected:
  ImpatientHeldAccess() : HeldAccess(1ms) {}
};

// [iommu §6.5]
TEST_F(ImpatientHeldAccess, DdtpThatWasTurnedOffIsBusyForTheTimeOutAtMost) {
  const Hold stuck = begin();
  write(reg::kDdtp, 0, 8);
  while (is_busy()) std::this_thread::yield();
}

// [iommu §6.2]
TEST_F(ImpatientHeldAccess, WhatAResetGaveUpIsNotWaitedForAgain) {
  for (const bool waited_for : {false, true}) {
    const Hold stuck = begin();
    if (waited_for) invalidate();
    iommu_->reset();
    enable_queues();
    set_ddtp(Ddtp::ModeValue::k1Lvl);
    invalidate();
    EXPECT_TRUE(idle()) << waited_for;
    EXPECT_EQ(error_bits(), 0U) << waited_for;
  }
}

class HeldAccessesTest : public testing::Test {
 protected:
  static constexpr auto kNever = HeldAccesses::TimePoint::max();
  Stamp stamp(std::uint32_t device = 1) {
    return Generations::Snapshot(*generations_, DeviceId{device}, 0).of_device_context();
  }
  const std::unique_ptr<Generations> generations_ = std::make_unique<Generations>();
  HeldAccesses accesses_{*generations_};
};

TEST_F(HeldAccessesTest, LaterOnesAndThoseThatAreNotVoidHoldUpNoReset) {
  HeldAccesses::Access first, holds, later, again;
  accesses_.begin(stamp(), first);
  generations_->invalidate_all();
  accesses_.begin(stamp(), holds);
  const auto earlier = accesses_.earlier(kNever);
  EXPECT_FALSE(accesses_.over(earlier));
  accesses_.begin(stamp(), later);
  EXPECT_FALSE(accesses_.end(first));
  EXPECT_TRUE(accesses_.over(earlier));
  EXPECT_FALSE(accesses_.end(holds));
  accesses_.begin(stamp(), again);
  generations_->invalidate_all();
  EXPECT_TRUE(accesses_.over(earlier)) << "these are later";
  EXPECT_FALSE(accesses_.give_up(earlier));
  EXPECT_FALSE(accesses_.none_void_or_wait(kNever)) << "and they are not given up";
  EXPECT_FALSE(accesses_.end(later));
  EXPECT_TRUE(accesses_.end(again));
}

TEST_F(HeldAccessesTest, AFenceThatMeetsOneWhichAResetGivesUpReportsIt) {
  HeldAccesses::Access access;
  accesses_.begin(stamp(), access);
  generations_->invalidate_all();
  const auto earlier = accesses_.earlier({});
  EXPECT_TRUE(accesses_.over(earlier)) << "the deadline has come";
  EXPECT_FALSE(accesses_.none_void_or_wait(kNever));
  EXPECT_TRUE(accesses_.give_up(earlier));
  EXPECT_TRUE(accesses_.none_void_or_wait(kNever));
  EXPECT_TRUE(accesses_.take_timed_out());
  (void)accesses_.end(access);
}

// A Hold that is moved is the same access, wherever it stands among the others.
TEST_F(HeldAccessesTest, OneThatMovesIsWaitedForInItsNewPlace) {
  std::array<HeldAccesses::Access, 3> old, moved;
  for (auto& access : old) accesses_.begin(stamp(), access);
  generations_->invalidate_all();
  EXPECT_FALSE(accesses_.none_void_or_wait(kNever));
  for (std::size_t i = 0; i < old.size(); ++i) {
    accesses_.move(old[i], moved[i]);
    old[i] = {};
  }
  EXPECT_FALSE(accesses_.end(moved[1]));
  EXPECT_FALSE(accesses_.end(moved[0]));
  EXPECT_TRUE(accesses_.end(moved[2])) << "the last ends the wait";
}

}  // namespace
}  // namespace tandem::iommu::detail
