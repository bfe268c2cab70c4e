// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/page_request.hpp"

#include <gtest/gtest.h>

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
  EXPECT_EQ(groups.answer(response(*group, Code::kInvalidRequest)), kPage);
  EXPECT_EQ(groups.wait(*group, 1s), Code::kInvalidRequest);
}

TEST(PageRequestGroups, AResponseFromAnotherThreadEndsTheWait) {
  PageRequestGroups groups;
  const auto group = groups.claim(kPasid, kPage);
  std::jthread other([&] { groups.answer(response(*group, Code::kSuccess, std::nullopt)); });
  EXPECT_EQ(groups.wait(*group, 10s), Code::kSuccess);
}

TEST(PageRequestGroups, StrayResponsesAreIgnored) {
  PageRequestGroups groups;
  const auto group = groups.claim(kPasid, kPage);
  EXPECT_FALSE(groups.answer(response(*group, Code::kSuccess, iommu::Pasid{4})));
  EXPECT_FALSE(groups.answer(response(0xffff, Code::kSuccess)));
  EXPECT_FALSE(groups.answer(response(static_cast<std::uint16_t>(*group + 1), Code::kSuccess)));
  EXPECT_EQ(groups.wait(*group, 1ms), std::nullopt);
}

TEST(PageRequestGroups, AnAbandonedGroupIsNotReusedBeforeItsResponse) {
  PageRequestGroups groups;
  const auto late = groups.claim(kPasid, kPage);
  EXPECT_EQ(groups.wait(*late, 0ms), std::nullopt);
  std::set<std::uint16_t> others;
  while (const auto group = groups.claim(kPasid, kPage)) others.insert(*group);
  EXPECT_EQ(others.size(), PageRequestGroups::kCount - 1);
  EXPECT_FALSE(others.contains(*late));
  EXPECT_FALSE(groups.answer(response(*late, Code::kSuccess)));
  EXPECT_EQ(groups.claim(kPasid, kPage), late);
}

}  // namespace
}  // namespace tandem::pcie::detail
