// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/iommu_driver.hpp"

#include <gtest/gtest.h>

#include <set>

#include "tandem/uacce/detail/pasid_allocator.hpp"

namespace tandem::uacce::detail {
namespace {

using iommu::Pasid;

class IommuDriverTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(driver_.start([](const iommu::PageRequestRecord&) {
      return iommu::PageResponse::Code::kInvalidRequest;
    }));
  }

  memory::Memory memory_;
  iommu::Iommu iommu_{memory_};
  TableMemory tables_{memory_};
  IommuDriver driver_{memory_, iommu_, tables_};
};

TEST_F(IommuDriverTest, GivesEachDeviceAnIdAndReusesThatOfARemovedOne) {
  const auto first = driver_.add_device();
  const auto second = driver_.add_device();
  ASSERT_TRUE(first && second);
  EXPECT_NE(*first, *second);
  driver_.remove_device(*first);
  const auto third = driver_.add_device();
  ASSERT_TRUE(third);
  EXPECT_EQ(*third, *first);
}

// [iommu §3.2] a process context is found through three levels of 20-bit process id
TEST_F(IommuDriverTest, AProcessContextLeadsToItsPageTable) {
  const Pasid pasid{0xabcde};
  EXPECT_EQ(iommu::DirectoryEntry::V::get(driver_.walk_directory(pasid).back().entry), 0u);
  ASSERT_TRUE(driver_.set_process(pasid, memory::PhysAddr{0x1234000}));
  const auto steps = driver_.walk_directory(pasid);
  ASSERT_EQ(steps.size(), 3u);
  EXPECT_EQ(iommu::ProcessContext::Ta::V::get(steps[2].entry), 1u);
  EXPECT_EQ(iommu::ProcessContext::Ta::Pscid::get(steps[2].entry), pasid.value);
  const auto fsc = memory_.load64(steps[2].at.plus(8), std::memory_order_relaxed);
  ASSERT_TRUE(fsc);
  EXPECT_EQ(iommu::Fsc::Ppn::get(*fsc), 0x1234u);
  EXPECT_TRUE(driver_.clear_process(pasid));
  EXPECT_EQ(driver_.walk_directory(pasid).back().entry, 0u);
}

TEST_F(IommuDriverTest, ABatchLongerThanTheCommandQueueIsSplit) {
  for (int i = 0; i < 600; ++i) ASSERT_TRUE(driver_.add_device());
  // One IODIR for each device; the queue holds 255 commands.
  ASSERT_TRUE(driver_.set_process(Pasid{7}, memory::PhysAddr{0x5000}));
  EXPECT_EQ(driver_.walk_directory(Pasid{7}).size(), 3u);
}

TEST(PasidAllocator, GivesOutEachOnceAndNeverZero) {
  PasidAllocator pasids;
  std::set<std::uint32_t> seen;
  for (int i = 0; i < 5000; ++i) {
    const auto pasid = pasids.allocate();
    ASSERT_TRUE(pasid);
    EXPECT_NE(pasid->value, 0u);
    EXPECT_TRUE(seen.insert(pasid->value).second);
  }
}

TEST(PasidAllocator, ReusesTheOneFreedLongestAgoAfterARest) {
  PasidAllocator pasids;
  std::uint32_t last = 0;
  for (std::size_t i = 0; i < PasidAllocator::kResting; ++i) {
    const auto pasid = pasids.allocate();
    ASSERT_EQ(pasid->value, last + 1) << "none is used again at once";
    last = pasid->value;
    pasids.free(*pasid);
  }
  EXPECT_EQ(pasids.allocate()->value, 1u);
}

TEST(PasidAllocator, SaysWhenNoneIsLeft) {
  PasidAllocator pasids;
  for (std::uint32_t i = 1; i < std::uint32_t{1} << iommu::kPasidBits; ++i) {
    ASSERT_TRUE(pasids.allocate());
  }
  EXPECT_FALSE(pasids.allocate());
  pasids.free(Pasid{77});
  EXPECT_EQ(pasids.allocate()->value, 77u);
}

}  // namespace
}  // namespace tandem::uacce::detail
