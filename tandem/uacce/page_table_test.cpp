// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/page_table.hpp"

#include <gtest/gtest.h>

#include <cstdint>

namespace tandem::uacce::detail {
namespace {

using iommu::Pte;
using memory::PhysAddr;

constexpr std::uint64_t kVa = 0x7f0040000000;
constexpr PageRights kReadWrite{true, true};

class PageTableTest : public testing::Test {
 protected:
  PageTable::Step last_step(std::uint64_t address) { return table_->walk(address).back(); }

  memory::Memory memory_;
  TableMemory tables_{memory_};
  Result<PageTable> table_ = PageTable::create(memory_, tables_);
  PageTable::Change change_;
};

TEST_F(PageTableTest, TranslatesWhatWasMappedWithItsRights) {
  ASSERT_TRUE(table_->map(kVa, PhysAddr{0x5000}, 0, {true, false}, change_));
  const auto step = last_step(kVa + 123);
  EXPECT_EQ(step.level, 0u);
  EXPECT_EQ(Pte::Ppn::get(step.entry), 5u);
  EXPECT_EQ(Pte::W::get(step.entry), 0u);
  EXPECT_EQ(Pte::R::get(step.entry) & Pte::U::get(step.entry) & Pte::A::get(step.entry), 1u);
  EXPECT_FALSE(change_.stale()) << "nothing valid was replaced";
}

TEST_F(PageTableTest, FillsARunOfLeafEntries) {
  ASSERT_TRUE(
      table_->map_pages(kVa + 0x3000, kVa + 0x10000, PhysAddr{0x8000}, kReadWrite, change_));
  EXPECT_EQ(last_step(kVa + 0x2000).entry, 0u);
  EXPECT_EQ(Pte::Ppn::get(last_step(kVa + 0x3000).entry), 0x8u);
  EXPECT_EQ(Pte::Ppn::get(last_step(kVa + 0xf000).entry), 0x14u);
  EXPECT_EQ(last_step(kVa + 0x10000).entry, 0u);
}

TEST_F(PageTableTest, AWidenedRightIsAChangeToInvalidate) {
  ASSERT_TRUE(table_->map(kVa, PhysAddr{0x5000}, 0, {true, false}, change_));
  ASSERT_TRUE(table_->map(kVa, PhysAddr{0x5000}, 0, {true, false}, change_));
  EXPECT_FALSE(change_.stale()) << "the same entry again";
  ASSERT_TRUE(table_->map(kVa, PhysAddr{0x5000}, 0, kReadWrite, change_));
  EXPECT_TRUE(change_.stale());
  EXPECT_EQ(change_.first, kVa);
  EXPECT_EQ(change_.last, kVa + 0x1000);
}

TEST_F(PageTableTest, UnmappingUnlinksTheTablesThatBecomeEmpty) {
  ASSERT_TRUE(table_->map_pages(kVa, kVa + 0x4000, PhysAddr{0x8000}, kReadWrite, change_));
  const std::uint64_t pages = table_->table_pages();
  EXPECT_GT(pages, 2u);
  table_->unmap(kVa, kVa + 0x2000, change_);
  EXPECT_TRUE(change_.unlinked.empty());
  EXPECT_NE(last_step(kVa + 0x3000).entry, 0u);
  table_->unmap(kVa + 0x2000, kVa + 0x4000, change_);
  EXPECT_EQ(change_.unlinked.size(), pages - 1);
  EXPECT_EQ(table_->table_pages(), 1u);
  EXPECT_EQ(change_.first, kVa & ~(level_bytes(iommu::first_stage_levels(kFirstStageMode) - 1) - 1))
      << "whole tables went";
}

TEST_F(PageTableTest, ASuperpageGivesWayToASmallerPage) {
  ASSERT_TRUE(table_->map(kVa, PhysAddr{0x40000000}, 1, {true, false}, change_));
  EXPECT_EQ(last_step(kVa + 0x12345).level, 1u);
  EXPECT_EQ(table_->level_without_table(kVa, 2), 1u)
      << "the level 2 entry is a table of superpages";
  ASSERT_TRUE(table_->map(kVa + 0x1000, PhysAddr{0x40001000}, 0, kReadWrite, change_));
  EXPECT_TRUE(change_.stale());
  EXPECT_EQ(change_.last - change_.first, level_bytes(1)) << "all of it is stale";
  EXPECT_NE(last_step(kVa + 0x1000).entry, 0u);
  EXPECT_EQ(last_step(kVa).entry, 0u) << "the rest faults again";
  EXPECT_EQ(table_->level_without_table(kVa, 2), 0u);
}

TEST_F(PageTableTest, UnmappingAPageOfASuperpageDropsAllOfIt) {
  ASSERT_TRUE(table_->map(kVa, PhysAddr{0x40000000}, 1, kReadWrite, change_));
  table_->unmap(kVa + 0x5000, kVa + 0x6000, change_);
  EXPECT_EQ(Pte::V::get(last_step(kVa).entry), 0u);
}

TEST_F(PageTableTest, FreedTablesAreZeroedAndUsedAgain) {
  ASSERT_TRUE(table_->map_pages(kVa, kVa + 0x4000, PhysAddr{0x8000}, kReadWrite, change_));
  const std::uint64_t used = tables_.pages_in_use();
  table_->free_all();
  EXPECT_EQ(tables_.pages_in_use(), 0u);
  EXPECT_EQ(tables_.pages_freed(), used);
  for (std::uint64_t i = 0; i < used; ++i) {
    const auto page = tables_.allocate();
    ASSERT_TRUE(page);
    EXPECT_LT(page->value, kTableBase.value + used * kPageSize) << "used again";
    for (std::uint64_t word = 0; word < kPageSize; word += 8) {
      ASSERT_EQ(*memory_.load64(page->plus(word), std::memory_order_relaxed), 0u);
    }
  }
}

}  // namespace
}  // namespace tandem::uacce::detail
