// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/slots.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace tandem::pcie::detail {
namespace {

using namespace std::chrono_literals;
const SpaceKey kNone{std::nullopt};
const SpaceKey kZero{iommu::Pasid{0}};
const SpaceKey kOne{iommu::Pasid{1}};

TEST(Slots, RunOutAndComeBack) {
  Slots slots;
  std::vector<std::uint32_t> taken;
  for (std::size_t i = 0; i < Slots::kCount; ++i) taken.push_back(*slots.claim(kOne, 7));
  EXPECT_FALSE(slots.claim(kOne, 0));
  slots.release(taken[3]);
  EXPECT_EQ(slots.claim(kZero, 0), taken[3]);
  for (const std::uint32_t slot : taken) slots.release(slot);
  EXPECT_TRUE(slots.idle());
}

TEST(Slots, WaitConcernsTheMatchingSpaceOnly) {
  Slots slots;
  const auto slot = slots.claim(kOne, 0);
  EXPECT_TRUE(slots.wait(kZero, 0ms));
  EXPECT_TRUE(slots.wait(kNone, 0ms));
  EXPECT_FALSE(slots.wait(kOne, 1ms));
  EXPECT_FALSE(slots.wait(std::nullopt, 1ms));
  slots.release(*slot);
  EXPECT_TRUE(slots.wait(kOne, 0ms));
}

TEST(Slots, WaitForAllPasidsSparesTheSpaceWithoutOne) {
  Slots slots;
  const auto slot = slots.claim(kNone, 0);
  EXPECT_TRUE(slots.wait(std::nullopt, 0ms));
  slots.release(*slot);
}

TEST(Slots, WaitEndsWhenTheOwnerReleases) {
  Slots slots;
  for (int round = 0; round < 200; ++round) {
    const auto slot = slots.claim(kOne, 0);
    std::atomic<bool> released{false};
    std::jthread owner([&] {
      released = true;
      slots.release(*slot);
    });
    EXPECT_TRUE(slots.wait(kOne, 10s));
    EXPECT_TRUE(released);
  }
}

}  // namespace
}  // namespace tandem::pcie::detail
