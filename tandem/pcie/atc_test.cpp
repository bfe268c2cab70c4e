// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/atc.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace tandem::pcie::detail {
namespace {

constexpr std::uint64_t kVersion = 1;
const SpaceKey kNone{std::nullopt};
const SpaceKey kZero{iommu::Pasid{0}};
const SpaceKey kOne{iommu::Pasid{1}};

CachedTranslation page(std::uint64_t iova, std::uint64_t physical, unsigned log2_size = 12) {
  CachedTranslation translation;
  translation.iova = iova;
  translation.physical = physical;
  translation.log2_size = log2_size;
  translation.permissions = kReadable;
  translation.version = kVersion;
  return translation;
}

class AtcTest : public testing::Test {
 protected:
  void keep(SpaceKey space, const CachedTranslation& translation) {
    atc.fill(space, atc.ticket(space), translation);
  }
  std::optional<std::uint64_t> find(SpaceKey space, std::uint64_t at, unsigned need = kReadable) {
    CachedTranslation found;
    if (!atc.lookup(space, at, need, kVersion, found)) return std::nullopt;
    return found.physical + found.offset(at);
  }
  Atc atc;
};

TEST_F(AtcTest, FindsWhatWasKeptForTheSameSpaceOnly) {
  keep(kZero, page(0x1000, 0x70000));
  EXPECT_EQ(find(kZero, 0x1fff), 0x70fffu);
  EXPECT_EQ(find(kZero, 0x2000), std::nullopt);
  EXPECT_EQ(find(kOne, 0x1000), std::nullopt);
  EXPECT_EQ(find(kNone, 0x1000), std::nullopt);
  keep(kNone, page(0x1000, 0x90000));
  EXPECT_EQ(find(kNone, 0x1000), 0x90000u);
  EXPECT_EQ(find(kZero, 0x1000), 0x70000u);
}

TEST_F(AtcTest, MissesWithoutPermission) {
  keep(kZero, page(0x1000, 0x70000));
  EXPECT_EQ(find(kZero, 0x1000, kWritable), std::nullopt);
  CachedTranslation writable = page(0x1000, 0x70000);
  writable.permissions |= kWritable;
  keep(kZero, writable);
  EXPECT_EQ(find(kZero, 0x1000, kWritable), 0x70000u);
}

TEST_F(AtcTest, AHostAddressOfAnotherVersionIsAMiss) {
  std::byte byte{};
  CachedTranslation translation = page(0x1000, 0x70000);
  translation.host = &byte;
  keep(kZero, translation);
  CachedTranslation found;
  EXPECT_TRUE(atc.lookup(kZero, 0x1000, kReadable, kVersion, found));
  EXPECT_FALSE(atc.lookup(kZero, 0x1000, kReadable, kVersion + 1, found));
}

TEST_F(AtcTest, HoldsPagesOfEverySize) {
  for (const unsigned log2_size : {12u, 16u, 21u, 30u, 39u, 48u, 56u}) {
    Atc fresh;
    const std::uint64_t at = log2_size == 56 ? 0 : std::uint64_t{1} << log2_size;
    fresh.fill(kOne, fresh.ticket(kOne), page(at, 0, log2_size));
    CachedTranslation found;
    const std::uint64_t last = at + (std::uint64_t{1} << log2_size) - 1;
    ASSERT_TRUE(fresh.lookup(kOne, last, kReadable, kVersion, found));
    EXPECT_EQ(found.reach(last), 1u);
    EXPECT_FALSE(fresh.lookup(kOne, last + 1, kReadable, kVersion, found));
    fresh.invalidate(kOne, last & ~std::uint64_t{0xfff}, 0x1000);  // any page of it drops it all
    EXPECT_FALSE(fresh.lookup(kOne, at, kReadable, kVersion, found));
  }
}

TEST_F(AtcTest, InvalidationDropsTheRangeAndNothingElse) {
  for (std::uint64_t i = 0; i < 8; ++i) keep(kOne, page(i << 12, i << 20));
  keep(kZero, page(0x3000, 0x99000));
  atc.invalidate(kOne, 0x2000, 0x2000);
  for (std::uint64_t i = 0; i < 8; ++i) {
    EXPECT_EQ(find(kOne, i << 12).has_value(), i != 2 && i != 3) << i;
  }
  EXPECT_TRUE(find(kZero, 0x3000));
}

TEST_F(AtcTest, LongRangesAndWholeSpacesAreDropped) {
  for (const std::uint64_t size_bytes : {std::uint64_t{0}, std::uint64_t{1} << 40}) {
    keep(kOne, page(0x5000, 0x70000));
    keep(kZero, page(0x5000, 0x70000));
    keep(kNone, page(0x5000, 0x70000));
    atc.invalidate(kOne, 0, size_bytes);
    EXPECT_FALSE(find(kOne, 0x5000));
    EXPECT_TRUE(find(kZero, 0x5000));
    EXPECT_TRUE(find(kNone, 0x5000));
  }
}

TEST_F(AtcTest, AGlobalInvalidationSparesTheSpaceWithoutPasid) {
  keep(kOne, page(0x5000, 0x70000));
  keep(kNone, page(0x5000, 0x70000));
  atc.invalidate_all_pasids();
  EXPECT_FALSE(find(kOne, 0x5000));
  EXPECT_TRUE(find(kNone, 0x5000));
}

TEST_F(AtcTest, AFillThatRacedWithAnInvalidationIsNotKept) {
  for (const std::uint64_t size_bytes : {std::uint64_t{0x1000}, std::uint64_t{0}}) {
    const Atc::Ticket ticket = atc.ticket(kOne);
    EXPECT_TRUE(atc.current(kOne, ticket));
    atc.invalidate(kOne, 0, size_bytes);
    EXPECT_FALSE(atc.current(kOne, ticket));
    atc.fill(kOne, ticket, page(0, 0x70000));
    EXPECT_FALSE(find(kOne, 0));
  }
}

TEST_F(AtcTest, NeighboursInAFullSetEvictOnlyEachOther) {
  constexpr std::uint64_t kStride = std::uint64_t{2048} << 12;
  for (std::uint64_t i = 0; i < 5; ++i) {
    keep(kOne, page(i * kStride, i << 20));
    EXPECT_TRUE(find(kOne, i * kStride));
  }
}

TEST(AtcStress, ConcurrentFillsAndInvalidationsNeverLeaveAStaleEntry) {
  // `truth` plays the page table: an invalidation follows every change, and after it nobody finds
  // an older translation.
  Atc atc;
  std::atomic<std::uint64_t> truth{1};
  std::atomic<std::uint64_t> floor{1};
  std::atomic<bool> stop{false};
  std::vector<std::jthread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      while (!stop) {
        const std::uint64_t oldest = floor.load();
        CachedTranslation found;
        if (atc.lookup(kOne, 0x4000, kReadable, kVersion, found)) {
          EXPECT_GE(found.physical >> 12, oldest);
        }
        const Atc::Ticket ticket = atc.ticket(kOne);
        atc.fill(kOne, ticket, page(0x4000, truth.load() << 12));
      }
    });
  }
  for (std::uint64_t i = 2; i < 20'000; ++i) {
    truth.store(i);
    atc.invalidate(kOne, 0x4000, i % 16 == 0 ? 0 : 0x1000);
    floor.store(i);
  }
  stop = true;
}

}  // namespace
}  // namespace tandem::pcie::detail
