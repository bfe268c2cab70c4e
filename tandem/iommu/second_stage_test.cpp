// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/second_stage.hpp"

#include <gtest/gtest.h>

#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

constexpr std::uint64_t kRootBytes = 16384;

class SecondStageTest : public Board {
 protected:
  SecondStageTest() : Board(kAllCapabilities) { use(SecondStageMode::kSv39x4); }
  void use(SecondStageMode mode) {
    stage_.scheme = scheme_of(mode);
    stage_.root_ppn = allocate_pages_aligned(kRootBytes);
  }
  void map_guest(std::uint64_t at, std::uint64_t ppn, std::uint64_t flags = kLeaf,
                 unsigned level = 0) {
    map(stage_.root_ppn, stage_.scheme, at, ppn, flags, level);
  }
  Result<GuestPage, GuestFault> run(std::uint64_t at, AccessTypes types = {.read = true}) {
    TableReader reader(memory_);
    return translate_guest(reader, config_, stage_, at, types, types.write);
  }
  Result<GuestPage, GuestFault> run_leaf(std::uint64_t flags, AccessTypes types = {.read = true}) {
    map_guest(kAt, 0x40000, flags);
    return run(kAt, types);
  }
  static constexpr std::uint64_t kAt = 0x12'3456'7abc;
  const Config config_{kAllCapabilities};
  SecondStage stage_;
};

// [iommu §3.1.3.2] Privileged specification, "Guest-Physical Address Translation"
TEST_F(SecondStageTest, EveryModeAndPageSizeTranslates) {
  for (const auto mode :
       {SecondStageMode::kSv39x4, SecondStageMode::kSv48x4, SecondStageMode::kSv57x4}) {
    for (unsigned level = 0; level < second_stage_levels(mode); ++level) {
      use(mode);
      const unsigned log2_size = kPageShift + 9 * level;
      const std::uint64_t ppn = level == 4 ? 0 : std::uint64_t{5} << (9 * level);
      map_guest(kAt, ppn, kLeaf, level);
      const auto found = run(kAt);
      ASSERT_TRUE(found.has_value()) << static_cast<int>(mode) << ", leaf at " << level;
      EXPECT_EQ(found->log2_size, log2_size);
      EXPECT_EQ(found->address.value,
                (ppn << kPageShift) | (kAt & ((std::uint64_t{1} << log2_size) - 1)));
    }
  }
}

TEST_F(SecondStageTest, TheRootIsFourPagesAndAddressesTwoBitsWider) {
  for (const auto& [mode, bits] :
       {std::pair{SecondStageMode::kSv39x4, 41U}, std::pair{SecondStageMode::kSv48x4, 50U},
        std::pair{SecondStageMode::kSv57x4, 59U}}) {
    use(mode);
    const std::uint64_t top = (std::uint64_t{1} << bits) - kPageBytes;
    map_guest(top, 0x40000);
    EXPECT_TRUE(run(top).has_value()) << bits;
    EXPECT_EQ(run(top | std::uint64_t{1} << bits).error(), GuestFault::kPageFault) << bits;
    EXPECT_EQ(run(~std::uint64_t{0} << (bits - 1)).error(), GuestFault::kPageFault)
        << "no sign extension";
  }
}

TEST_F(SecondStageTest, ALeafIsAUsers) {
  EXPECT_TRUE(run_leaf(kLeaf).has_value());
  EXPECT_EQ(run_leaf(kLeaf & ~Pte::U::kMask).error(), GuestFault::kPageFault);
}

TEST_F(SecondStageTest, PermissionsDecideByAccess) {
  constexpr std::uint64_t kBase = Pte::V::kMask | Pte::U::kMask | Pte::A::kMask | Pte::D::kMask;
  EXPECT_TRUE(run_leaf(kBase | Pte::R::kMask, {.read = true}).has_value());
  EXPECT_FALSE(run_leaf(kBase | Pte::R::kMask, {.write = true}).has_value());
  EXPECT_FALSE(run_leaf(kBase | Pte::R::kMask, {.execute = true}).has_value());
  EXPECT_FALSE(run_leaf(kBase | Pte::X::kMask, {.read = true}).has_value());
  EXPECT_TRUE(run_leaf(kBase | Pte::X::kMask, {.execute = true}).has_value());
  EXPECT_TRUE(run_leaf(kBase | Pte::R::kMask, {}).has_value()) << "an ATS translation request";
}

TEST_F(SecondStageTest, ReservedBitsAndEncodingsFault) {
  for (const std::uint64_t bad :
       {Pte::Reserved::make(1), Pte::Reserved::make(16), Pte::Pbmt::make(3)}) {
    EXPECT_EQ(run_leaf(kLeaf | bad).error(), GuestFault::kPageFault) << std::hex << bad;
  }
  EXPECT_EQ(run_leaf(kLeaf & ~Pte::R::kMask).error(), GuestFault::kPageFault) << "W without R";
  EXPECT_EQ(run_leaf(0).error(), GuestFault::kPageFault);
  EXPECT_EQ(run_leaf(kLeaf | Pte::N::kMask).error(), GuestFault::kPageFault) << "bad NAPOT size";
  map_guest(kAt, 1, kLeaf, 1);
  EXPECT_EQ(run(kAt).error(), GuestFault::kPageFault) << "misaligned superpage";
}

TEST_F(SecondStageTest, ExtensionsGiveReservedBitsAMeaning) {
  EXPECT_TRUE(run_leaf(kLeaf | Pte::Rsw60t59b::kMask).has_value());
  EXPECT_TRUE(run_leaf(kLeaf | Pte::Pbmt::make(2)).has_value());
  const Config without{kHostCapabilities | Capabilities::Sv39x4::make(1)};
  for (const std::uint64_t bits : {Pte::Rsw60t59b::make(1), Pte::Pbmt::make(1)}) {
    map_guest(kAt, 0x40000, kLeaf | bits);
    TableReader reader(memory_);
    EXPECT_FALSE(translate_guest(reader, without, stage_, kAt, {}, false).has_value());
  }
}

TEST_F(SecondStageTest, WithoutGadeAClearBitFaults) {
  EXPECT_EQ(run_leaf(kLeaf & ~Pte::A::kMask).error(), GuestFault::kPageFault);
  EXPECT_TRUE(run_leaf(kLeaf & ~Pte::D::kMask).has_value());
  EXPECT_EQ(run_leaf(kLeaf & ~Pte::D::kMask, {.write = true}).error(), GuestFault::kPageFault);
}

// [iommu §3.4]
TEST_F(SecondStageTest, WithGadeTheBitsAreSetAsNeeded) {
  stage_.updates_ad = true;
  const auto leaf = [this] { return load(pte_slot(stage_.root_ppn, stage_.scheme, kAt)); };
  ASSERT_TRUE(run_leaf(kLeaf & ~(Pte::A::kMask | Pte::D::kMask)).has_value());
  EXPECT_EQ(leaf() & (Pte::A::kMask | Pte::D::kMask), Pte::A::kMask);
  ASSERT_TRUE(run(kAt, {.write = true}).has_value());
  EXPECT_EQ(leaf() & (Pte::A::kMask | Pte::D::kMask), Pte::A::kMask | Pte::D::kMask);
}

// [iommu §3.4]
TEST_F(SecondStageTest, ALeafThatKeepsChangingIsAPageFaultInTheEnd) {
  stage_.updates_ad = true;
  const PhysAddr at{allocate_page() << kPageShift};  // 0: not what was read
  TableReader reader(memory_);
  reader.repeats = 1;
  const auto again = update_guest_leaf(reader, stage_, at, kLeaf, kLeaf);
  ASSERT_TRUE(again.has_value());
  EXPECT_FALSE(*again);
  EXPECT_EQ(update_guest_leaf(reader, stage_, at, kLeaf, kLeaf).error(), GuestFault::kPageFault);
}

TEST_F(SecondStageTest, TablesThatAreNotThereAreAnAccessFault) {
  stage_.root_ppn = kHolePpn;
  EXPECT_EQ(run(kAt).error(), GuestFault::kAccessFault);
}

TEST_F(SecondStageTest, BareIsTheAddressItself) {
  stage_ = {};
  const auto found = run(kAt, {.write = true});
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->address.value, kAt);
}

}  // namespace
}  // namespace tandem::iommu::detail
