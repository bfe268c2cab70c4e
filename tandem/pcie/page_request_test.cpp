// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/page_request.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>

namespace tandem::pcie::detail {
namespace {

using namespace std::chrono_literals;
using Code = iommu::PageResponse::Code;
constexpr iommu::Pasid kPasid{3};
constexpr iommu::Iova kPage{0x5000};

iommu::PageResponse response(std::uint16_t group, Code code,
                             std::optional<iommu::Pasid> pasid = kPasid) {
  return {pasid, group, code};
}

TEST(PageRequestGroups, AResponseEndsTheWait) {
  PageRequestGroups groups;
  const auto group = groups.claim(kPasid, kPage);
  EXPECT_EQ(groups.answer(response(*group, Code::kInvalidRequest)).page, kPage);
  EXPECT_EQ(groups.wait(*group, 1s), Code::kInvalidRequest);
}

TEST(PageRequestGroups, AResponseFromAnotherThreadEndsTheWait) {
  PageRequestGroups groups;
  const auto group = groups.claim(kPasid, kPage);
  std::jthread other([&] { groups.answer(response(*group, Code::kSuccess, std::nullopt)); });
  EXPECT_EQ(groups.wait(*group, 10s), Code::kSuccess);
}

TEST(PageRequestGroups, StressNoAnswerIsMissedByAWaiterThatIsFallingAsleep) {
  constexpr std::uint32_t kRounds = 1000;
  constexpr auto kForEver = 20s;
  PageRequestGroups groups;
  std::atomic<std::uint32_t> asked{0};  // | round << 16
  std::jthread other([&](const std::stop_token& stop) {
    for (std::uint32_t seen = 0; !stop.stop_requested();) {
      const std::uint32_t now = asked.load(std::memory_order_acquire);
      if (now == seen) {
        std::this_thread::yield();
        continue;
      }
      seen = now;
      groups.answer(response(static_cast<std::uint16_t>(now), Code::kSuccess));
    }
  });
  for (std::uint32_t round = 1; round <= kRounds; ++round) {
    const auto group = groups.claim(kPasid, kPage);
    ASSERT_TRUE(group);
    asked.store(round << 16 | *group, std::memory_order_release);
    const auto begin = std::chrono::steady_clock::now();
    ASSERT_EQ(groups.wait(*group, kForEver), Code::kSuccess);
    ASSERT_LT(std::chrono::steady_clock::now() - begin, kForEver) << "round " << round;
  }
}

TEST(PageRequestGroups, StrayResponsesAreIgnored) {
  PageRequestGroups groups;
  const auto group = groups.claim(kPasid, kPage);
  EXPECT_FALSE(groups.answer(response(*group, Code::kSuccess, iommu::Pasid{4})).expected);
  EXPECT_FALSE(groups.answer(response(0xffff, Code::kSuccess)).expected);
  const auto other = static_cast<std::uint16_t>(*group + 1);
  EXPECT_FALSE(groups.answer(response(other, Code::kSuccess)).expected);
  EXPECT_EQ(groups.wait(*group, 1ms), std::nullopt);
}

TEST(PageRequestGroups, AnAbandonedGroupIsNotReusedBeforeItsResponse) {
  PageRequestGroups groups;
  const auto late = groups.claim(kPasid, kPage);
  EXPECT_EQ(groups.wait(*late, 0ms), std::nullopt);
  std::set<std::uint16_t> others;
  groups.set_allocation(2 * PageRequestGroups::kCount);
  while (const auto group = groups.claim(kPasid, kPage)) others.insert(*group);
  EXPECT_EQ(others.size(), PageRequestGroups::kCount - 1);
  EXPECT_FALSE(others.contains(*late));
  const auto answer = groups.answer(response(*late, Code::kSuccess));
  EXPECT_TRUE(answer.expected);
  EXPECT_FALSE(answer.page) << "nobody waits any more";
  EXPECT_EQ(groups.claim(kPasid, kPage), late);
}

TEST(PageRequestGroups, TheCreditsOfAGroupComeBackWithItsResponse) {
  PageRequestGroups groups(5);
  EXPECT_FALSE(groups.claim(kPasid, kPage, 6)) << "never";
  const auto first = groups.claim(kPasid, kPage, 3);
  ASSERT_TRUE(first);
  EXPECT_FALSE(groups.claim(kPasid, kPage, 3));
  const auto second = groups.claim(kPasid, kPage, 2);
  ASSERT_TRUE(second);
  EXPECT_EQ(groups.wait(*first, 0ms), std::nullopt);
  EXPECT_EQ(groups.outstanding(), 5U) << "abandoned, and still outstanding";
  groups.answer(response(*first, Code::kSuccess));
  EXPECT_EQ(groups.outstanding(), 2U);
  EXPECT_TRUE(groups.claim(kPasid, kPage, 3));
  groups.set_allocation(4);
  groups.answer(response(*second, Code::kSuccess));
  EXPECT_FALSE(groups.claim(kPasid, kPage, 2));
  EXPECT_TRUE(groups.claim(kPasid, kPage, 1));
}

TEST(PageRequestGroups, AClaimWaitsForCredits) {
  PageRequestGroups groups(1);
  const auto first = groups.claim(kPasid, kPage);
  EXPECT_FALSE(groups.claim(kPasid, kPage, 1, 1ms));
  std::jthread other([&] { EXPECT_TRUE(groups.claim(kPasid, kPage, 1, 10s)); });
  groups.answer(response(*first, Code::kSuccess));
  EXPECT_EQ(groups.wait(*first, 1s), Code::kSuccess);
}

TEST(PageRequestGroups, AFailureEndsEveryWait) {
  PageRequestGroups groups;
  const auto waits = groups.claim(kPasid, kPage);
  std::jthread other([&] { groups.fail_all(); });
  EXPECT_EQ(groups.wait(*waits, 10s), Code::kResponseFailure);
  EXPECT_EQ(groups.outstanding(), 1U);
  EXPECT_TRUE(groups.answer(response(*waits, Code::kSuccess)).expected);
  EXPECT_EQ(groups.outstanding(), 0U);
}

TEST(PageRequestGroups, AFailureEndsEveryWaitForCredits) {
  PageRequestGroups groups(1);
  const auto first = groups.claim(kPasid, kPage);
  std::atomic<bool> ended{false};
  std::jthread claimer([&] {
    EXPECT_FALSE(groups.claim(kPasid, kPage, 1, 60s));
    ended = true;
  });
  const auto begin = std::chrono::steady_clock::now();
  while (!ended && std::chrono::steady_clock::now() - begin < 20s) {
    groups.fail_all();
    std::this_thread::yield();
  }
  EXPECT_TRUE(ended);
  if (!ended) groups.give_back(*first);
}

TEST(PageRequestGroups, WhatIsForgottenBeforeItsWaiterLooksGivesItsCreditsBack) {
  PageRequestGroups groups(1);
  const auto group = groups.claim(kPasid, kPage);
  groups.fail_all();
  groups.forget_abandoned();
  EXPECT_EQ(groups.outstanding(), 0U);
  EXPECT_EQ(groups.wait(*group, 0ms), Code::kResponseFailure);
  EXPECT_EQ(groups.outstanding(), 0U);
  EXPECT_TRUE(groups.claim(kPasid, kPage));
}

}  // namespace
}  // namespace tandem::pcie::detail
