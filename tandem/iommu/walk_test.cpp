// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/walk.hpp"

#include <gtest/gtest.h>

#include "tandem/iommu/detail/test_walk.hpp"

namespace tandem::iommu::detail {
namespace {

class WalkTest : public Board {
 protected:
  WalkTest() {
    walk_.scheme = scheme_of(FirstStageMode::kSv39);
    walk_.root_ppn = root_ = allocate_page();
    walk_.at = Iova{kAt};
  }
  Result<Translation, Cause> run(Access access = Access::kRead) {
    return walked(memory_, config_, walk_, access);
  }
  Result<Translation, Cause> run_leaf(std::uint64_t flags, Access access = Access::kRead,
                                      unsigned level = 0, std::uint64_t ppn = 0x40000) {
    store(pte_slot(root_, 3, kAt, level), Pte::Ppn::make(ppn) | flags);
    return run(access);
  }
  static constexpr std::uint64_t kAt = 0x12'3456'7abc;
  const Config config_{kHostCapabilities};
  Walk walk_;
};

// [iommu §3.3] Privileged specification, "Virtual Address Translation Process"
TEST_F(WalkTest, EveryModeAndPageSizeTranslates) {
  for (const auto mode : {FirstStageMode::kSv39, FirstStageMode::kSv48, FirstStageMode::kSv57}) {
    const unsigned levels = first_stage_levels(mode);
    for (unsigned level = 0; level < levels; ++level) {
      walk_.scheme = scheme_of(mode);
      walk_.root_ppn = allocate_page();
      const unsigned log2_size = kPageShift + 9 * level;
      const std::uint64_t ppn = level == 4 ? 0 : std::uint64_t{5} << (9 * level);
      map(walk_.root_ppn, levels, kAt, ppn, kLeaf, level);
      const auto found = run();
      ASSERT_TRUE(found.has_value()) << levels << " levels, leaf at " << level;
      EXPECT_EQ(found->log2_size, log2_size);
      EXPECT_EQ(found->address.value,
                (ppn << kPageShift) | (kAt & ((std::uint64_t{1} << log2_size) - 1)));
    }
  }
}

// [iommu §3.3]
TEST_F(WalkTest, ANonCanonicalAddressIsAPageFault) {
  struct Case {
    FirstStageMode mode;
    unsigned bits;
  };
  for (const auto& [mode, bits] : {Case{FirstStageMode::kSv39, 39},
                                   {FirstStageMode::kSv48, 48},
                                   {FirstStageMode::kSv57, 57}}) {
    walk_.scheme = scheme_of(mode);
    walk_.root_ppn = allocate_page();
    const std::uint64_t top = std::uint64_t{1} << (bits - 1);
    map(walk_.root_ppn, first_stage_levels(mode), top, 0x40000);
    walk_.at = Iova{top};
    EXPECT_EQ(cause_of(run()), Cause::kReadPageFault);
    walk_.at = Iova{~(top - 1)};  // sign-extended
    EXPECT_TRUE(run().has_value());
    walk_.at = Iova{std::uint64_t{1} << bits};
    EXPECT_EQ(cause_of(run()), Cause::kReadPageFault);
  }
}

// [iommu §4.2]
TEST_F(WalkTest, FaultsNameTheOriginalAccess) {
  EXPECT_EQ(cause_of(run(Access::kRead)), Cause::kReadPageFault);
  EXPECT_EQ(cause_of(run(Access::kWrite)), Cause::kWritePageFault);
  EXPECT_EQ(cause_of(run(Access::kExecute)), Cause::kInstructionPageFault);
  walk_.root_ppn = kHolePpn;
  EXPECT_EQ(cause_of(run(Access::kRead)), Cause::kReadAccessFault);
  EXPECT_EQ(cause_of(run(Access::kWrite)), Cause::kWriteAccessFault);
  EXPECT_EQ(cause_of(run(Access::kExecute)), Cause::kInstructionAccessFault);
}

// [iommu §3.3]
TEST_F(WalkTest, ReservedBitsAndEncodingsOfALeafFault) {
  ASSERT_TRUE(run_leaf(kLeaf).has_value());
  for (unsigned bit = 54; bit <= 62; ++bit) {
    EXPECT_EQ(cause_of(run_leaf(kLeaf | std::uint64_t{1} << bit)), Cause::kReadPageFault) << bit;
  }
  EXPECT_FALSE(run_leaf(kLeaf & ~Pte::V::kMask).has_value());
  EXPECT_FALSE(run_leaf(kLeaf & ~Pte::R::kMask).has_value()) << "W without R";
  EXPECT_TRUE(run_leaf(kLeaf | Pte::Rsw::kMask).has_value()) << "software's own bits";
}

// [iommu §3.3]
TEST_F(WalkTest, ReservedBitsOfAPointerFault) {
  const std::uint64_t pointer_at = pte_slot(root_, 3, kAt, 1);
  map(root_, 3, kAt, 0x40000);
  ASSERT_TRUE(run().has_value());
  const std::uint64_t pointer = load(pointer_at);
  for (const unsigned bit : {4U, 6U, 7U, 54U, 60U, 61U, 62U, 63U}) {
    store(pointer_at, pointer | std::uint64_t{1} << bit);
    EXPECT_EQ(cause_of(run()), Cause::kReadPageFault) << bit;
  }
  store(pointer_at, pointer | Pte::G::kMask);
  ASSERT_TRUE(run().has_value());
  EXPECT_TRUE(run()->global) << "a global pointer makes all below it global";
}

// [iommu §3.3]
TEST_F(WalkTest, APointerInTheLastLevelFaults) {
  EXPECT_EQ(cause_of(run_leaf(Pte::V::kMask)), Cause::kReadPageFault);
}

// [iommu §3.3]
TEST_F(WalkTest, AMisalignedSuperpageFaults) {
  for (unsigned level = 1; level < 3; ++level) {
    walk_.root_ppn = root_ = allocate_page();
    EXPECT_FALSE(run_leaf(kLeaf, Access::kRead, level, 1).has_value());
    EXPECT_FALSE(
        run_leaf(kLeaf, Access::kRead, level, std::uint64_t{1} << (9 * level - 1)).has_value());
    EXPECT_TRUE(run_leaf(kLeaf, Access::kRead, level, std::uint64_t{1} << (9 * level)).has_value());
  }
}

// [iommu §6.3] Svnapot is mandatory
TEST_F(WalkTest, ANapotPageHas64KiB) {
  constexpr std::uint64_t kNapot = kLeaf | Pte::N::kMask;
  const auto found = run_leaf(kNapot, Access::kRead, 0, 0x40008);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->log2_size, 16);
  EXPECT_EQ(found->address.value, 0x4000'0000 | (kAt & 0xffff));
  for (const std::uint64_t ppn : {0x40000U, 0x40001U, 0x40004U, 0x4000cU}) {
    EXPECT_FALSE(run_leaf(kNapot, Access::kRead, 0, ppn).has_value()) << std::hex << ppn;
  }
  walk_.root_ppn = root_ = allocate_page();
  EXPECT_FALSE(run_leaf(kNapot, Access::kRead, 1, 0x40008).has_value());
}

// [iommu §3.3]
TEST_F(WalkTest, PermissionsDecideByAccess) {
  constexpr std::uint64_t kUser = Pte::V::kMask | Pte::U::kMask | Pte::A::kMask | Pte::D::kMask;
  const auto allowed = [&](std::uint64_t flags, Access access) {
    return run_leaf(kUser | flags, access).has_value();
  };
  EXPECT_TRUE(allowed(Pte::R::kMask, Access::kRead));
  EXPECT_FALSE(allowed(Pte::R::kMask, Access::kWrite));
  EXPECT_FALSE(allowed(Pte::R::kMask, Access::kExecute));
  EXPECT_TRUE(allowed(Pte::R::kMask | Pte::W::kMask, Access::kWrite));
  EXPECT_TRUE(allowed(Pte::X::kMask, Access::kExecute));
  EXPECT_FALSE(allowed(Pte::X::kMask, Access::kRead));
}

// [iommu §3.2.3.1]
TEST_F(WalkTest, PrivilegeAndSumDecideByUserBit) {
  constexpr std::uint64_t kSupervisorPage = (kLeaf | Pte::X::kMask) & ~Pte::U::kMask;
  constexpr std::uint64_t kUserPage = kLeaf | Pte::X::kMask;
  EXPECT_FALSE(run_leaf(kSupervisorPage).has_value());
  walk_.supervisor = true;
  EXPECT_TRUE(run_leaf(kSupervisorPage).has_value());
  EXPECT_TRUE(run_leaf(kSupervisorPage, Access::kExecute).has_value());
  EXPECT_FALSE(run_leaf(kUserPage).has_value());
  walk_.sum = true;
  EXPECT_TRUE(run_leaf(kUserPage).has_value());
  EXPECT_FALSE(run_leaf(kUserPage)->executable);
  EXPECT_FALSE(run_leaf(kUserPage, Access::kExecute).has_value()) << "regardless of SUM";
}

// [iommu §3.1.3.1]
TEST_F(WalkTest, WithoutSadeAClearBitFaults) {
  EXPECT_EQ(cause_of(run_leaf(kLeaf & ~Pte::A::kMask)), Cause::kReadPageFault);
  EXPECT_EQ(cause_of(run_leaf(kLeaf & ~Pte::D::kMask, Access::kWrite)), Cause::kWritePageFault);
  const auto clean = run_leaf(kLeaf & ~Pte::D::kMask);
  ASSERT_TRUE(clean.has_value());
  EXPECT_FALSE(clean->writable) << "a copy of this answer must not let writes bypass D";
}

// [iommu §3.4]
TEST_F(WalkTest, WithSadeTheBitsAreSetAsNeeded) {
  walk_.updates_ad = true;
  constexpr std::uint64_t kFresh = kLeaf & ~(Pte::A::kMask | Pte::D::kMask);
  const std::uint64_t at = pte_slot(root_, 3, kAt);
  const auto read = run_leaf(kFresh);
  ASSERT_TRUE(read.has_value());
  EXPECT_FALSE(read->writable);
  EXPECT_EQ(load(at) & ~Pte::Ppn::kMask, kFresh | Pte::A::kMask);
  ASSERT_TRUE(run(Access::kWrite).has_value());
  EXPECT_EQ(load(at) & ~Pte::Ppn::kMask, kLeaf);
  ASSERT_TRUE(run_leaf(kFresh & ~Pte::W::kMask).has_value());
  EXPECT_FALSE(run(Access::kWrite).has_value());
  EXPECT_EQ(load(at) & Pte::D::kMask, 0U) << "a refused write leaves D";
}

// [iommu §3.4]
TEST_F(WalkTest, AnEntryThatChangesUnderItsUpdateIsJudgedAgainSoManyTimes) {
  // The entry lies in a table of the second stage and is there the one that maps this very table:
  // to find out where it may be written sets its D bit.
  SecondStage& guest = walk_.second_stage;
  guest.scheme = scheme_of(SecondStageMode::kSv39x4);
  guest.root_ppn = allocate_pages_aligned(16384);
  guest.updates_ad = walk_.updates_ad = true;
  constexpr std::uint64_t kTable = 0x4000'0000 | (kAt & 0x1f'f000);  // as the guest sees it
  const std::uint64_t entry = pte_slot(guest.root_ppn, guest.scheme, kTable);
  store(pte_slot(root_, 3, kAt, 1), Pte::make_pointer(kTable >> kPageShift));
  const std::uint64_t middle = Pte::Ppn::get(load(pte_slot(root_, 3, kAt, 2)));
  for (const std::uint64_t ppn : {root_, middle}) {
    map(guest.root_ppn, guest.scheme, ppn << kPageShift, ppn);
  }
  walk_.access = Access::kWrite;
  walk_.wants_write = true;
  const auto run_with = [&](unsigned repeats) {
    store(entry, Pte::Ppn::make(entry >> kPageShift) | (kLeaf & ~Pte::D::kMask));
    TableReader reader(memory_);
    reader.repeats = repeats;
    return walk_first_stage(reader, config_, walk_);
  };
  const auto judged = run_with(1);
  ASSERT_TRUE(judged.has_value());
  EXPECT_TRUE(judged->writable);
  const auto given_up = run_with(0);
  ASSERT_FALSE(given_up.has_value());
  EXPECT_EQ(given_up.error().cause, Cause::kWritePageFault);
}

// [iommu §3.4]
TEST_F(WalkTest, AnUpdateThatComesTooLateWritesNothingAndIsGivenUpInTheEnd) {
  const Scheme scheme = scheme_of(FirstStageMode::kSv39);
  const PhysAddr at{root_ << kPageShift};
  store(at.value, kLeaf);
  TableReader reader(memory_);
  for (int i = 0; i < 16; ++i) {
    ASSERT_EQ(update_entry(reader, scheme, at, 0, 1).value(), Update::kChanged) << i;
  }
  EXPECT_EQ(update_entry(reader, scheme, at, 0, 1).value(), Update::kGivenUp);
  EXPECT_EQ(load(at.value), kLeaf);
  EXPECT_EQ(update_entry(reader, scheme, at, kLeaf, 0).value(), Update::kMade);
  EXPECT_EQ(load(at.value), 0U);
}

}  // namespace
}  // namespace tandem::iommu::detail
