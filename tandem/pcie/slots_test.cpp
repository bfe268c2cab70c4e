// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/slots.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace tandem::pcie::detail {
namespace {

const SpaceKey kNone{std::nullopt};
const SpaceKey kZero{iommu::Pasid{0}};
const SpaceKey kOne{iommu::Pasid{1}};

iommu::AtsInvalidation request(std::uint8_t itag, std::uint32_t sequence = 0) {
  iommu::AtsInvalidation made;
  made.itag = itag;
  made.sequence = sequence;
  return made;
}

TEST(Slots, RunOutAndComeBack) {
  Slots slots;
  std::vector<std::uint32_t> taken;
  for (std::size_t i = 0; i < Slots::kCount; ++i) taken.push_back(*slots.claim(kOne, 7));
  EXPECT_FALSE(slots.claim(kOne, 0));
  EXPECT_FALSE(slots.release(taken[3])) << "nobody waits";
  EXPECT_EQ(slots.claim(kZero, 0), taken[3]);
  for (const std::uint32_t slot : taken) slots.release(slot);
  EXPECT_TRUE(slots.idle());
}

TEST(Slots, ARequestWaitsForTheMatchingSpaceOnly) {
  Slots slots;
  const auto slot = slots.claim(kOne, 0);
  EXPECT_FALSE(slots.wait_for(request(0), kZero));
  EXPECT_FALSE(slots.wait_for(request(1), kNone));
  EXPECT_TRUE(slots.wait_for(request(2), kOne));
  EXPECT_TRUE(slots.wait_for(request(3), std::nullopt));
  EXPECT_FALSE(slots.take_completed());
  EXPECT_TRUE(slots.release(*slot));
  EXPECT_EQ(slots.take_completed()->itag, 2);
  EXPECT_EQ(slots.take_completed()->itag, 3);
  EXPECT_FALSE(slots.take_completed());
  EXPECT_FALSE(slots.wait_for(request(2), kOne));
}

TEST(Slots, ARequestForAllPasidsSparesTheSpaceWithoutOne) {
  Slots slots;
  const auto slot = slots.claim(kNone, 0);
  EXPECT_FALSE(slots.wait_for(request(0), std::nullopt));
  slots.release(*slot);
}

TEST(Slots, ARequestWaitsForEverySlotThatWasBusyAndForNoLaterOne) {
  Slots slots;
  const auto first = slots.claim(kOne, 0);
  const auto second = slots.claim(kOne, 0);
  EXPECT_TRUE(slots.wait_for(request(0), kOne));
  slots.release(*first);
  EXPECT_FALSE(slots.take_completed());
  const auto later = slots.claim(kOne, 0);
  EXPECT_EQ(later, first);
  slots.release(*second);
  EXPECT_TRUE(slots.take_completed());
  EXPECT_FALSE(slots.release(*later));
}

TEST(Slots, ATagInUseAgainVoidsTheOlderRequest) {
  Slots slots;
  const auto slot = slots.claim(kOne, 0);
  EXPECT_TRUE(slots.wait_for(request(5, 1), kOne));
  EXPECT_TRUE(slots.wait_for(request(5, 33), kOne));
  slots.release(*slot);
  EXPECT_EQ(slots.take_completed()->sequence, 33U);
  EXPECT_FALSE(slots.take_completed());
}

TEST(Slots, AccessesLeaveSomeSlotsToWindows) {
  Slots slots;
  std::vector<std::uint32_t> accesses;
  for (int i = 0; i < 200; ++i) accesses.push_back(slots.claim_or_join(kOne, 60));
  const auto window = slots.claim(kOne, 0);
  ASSERT_TRUE(window);
  for (const std::uint32_t access : accesses) slots.release(access);
  EXPECT_FALSE(slots.idle());
  slots.release(*window);
}

/// A crowd: the slots of accesses are taken, for a space that no request below is for.
class SlotsCrowd : public testing::Test {
 protected:
  SlotsCrowd() {
    for (std::size_t i = 0; i < Slots::kForAccesses; ++i) taken_.push_back(join());
  }
  ~SlotsCrowd() override {
    for (const std::uint32_t slot : taken_) leave(slot);
    EXPECT_TRUE(slots_.idle());
  }
  std::uint32_t join() { return slots_.claim_or_join(kZero, 0); }
  /// Returns: how many requests wait no more.
  int leave(std::uint32_t slot) {
    int completed = 0;
    if (!slots_.release(slot)) return 0;
    while (slots_.take_completed()) ++completed;
    slots_.completed();
    return completed;
  }

  Slots slots_;
  std::vector<std::uint32_t> taken_;
};

TEST_F(SlotsCrowd, IsWaitedForWhateverItsSpace) {
  const std::uint32_t access = join();
  EXPECT_TRUE(slots_.wait_for(request(0), kOne));
  EXPECT_EQ(leave(access), 1);
  EXPECT_FALSE(slots_.wait_for(request(1), kOne));
}

TEST_F(SlotsCrowd, WhoComesAfterARequestIsNotWaitedFor) {
  std::uint32_t access = join();
  for (std::uint8_t itag = 0; itag < 10; ++itag) {
    ASSERT_TRUE(slots_.wait_for(request(itag), kOne));
    const std::uint32_t later = join();
    EXPECT_EQ(leave(access), 1) << +itag;
    access = later;
  }
  leave(access);
}

TEST_F(SlotsCrowd, OfWhichSomeStayHoldsUpNoRequestForEver) {
  const std::uint32_t first = join();
  EXPECT_TRUE(slots_.wait_for(request(0), kOne));
  const std::uint32_t second = join();
  EXPECT_TRUE(slots_.wait_for(request(1), kOne));
  const std::uint32_t third = join();  // may be waited for: it came before the first had left
  EXPECT_EQ(leave(first), 1);
  const std::uint32_t fourth = join();
  EXPECT_EQ(leave(third) + leave(second), 1);
  EXPECT_EQ(leave(fourth), 0);
}

TEST(Slots, StressEveryRequestThatWaitsIsCompletedOnce) {
  Slots slots;
  std::atomic<bool> stop{false};
  std::atomic<unsigned> completed{0};
  std::vector<std::jthread> owners;
  for (unsigned t = 0; t < 3; ++t) {
    owners.emplace_back([&, t] {
      while (!stop) {
        const auto slot = slots.claim(t == 0 ? kZero : kOne, t);
        std::this_thread::yield();
        if (!slots.release(*slot)) continue;
        while (slots.take_completed()) ++completed;
      }
    });
  }
  for (unsigned round = 0; round < 2000; ++round) {
    const unsigned before = completed;
    if (!slots.wait_for(request(round % 32), kOne)) continue;
    while (completed == before) std::this_thread::yield();
    ASSERT_EQ(completed, before + 1);
  }
  stop = true;
}

}  // namespace
}  // namespace tandem::pcie::detail
