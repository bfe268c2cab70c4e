// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/generations.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <initializer_list>

namespace tandem::iommu::detail {
namespace {

constexpr DeviceId kDevice{3};
constexpr std::uint32_t kProcess = 9;
constexpr AddressSpaceId kHostSpace{std::nullopt, 1234};
constexpr AddressSpaceId kGuestSpace{77, 1234};
constexpr Iova kAt{0x7f12'3456'7000};

class GenerationsTest : public ::testing::Test {
 protected:
  struct Stamps {
    Generations::Stamp device, process, translation;
  };
  Stamps stamps(AddressSpaceId space, unsigned log2_size = 12) {
    Generations::Snapshot snapshot(generations_, kDevice, kProcess);
    snapshot.add_domain(space.gscid);
    snapshot.add_space(space, kAt);
    return {snapshot.of_device_context(), snapshot.of_process_context(),
            snapshot.of_translation(log2_size)};
  }
  /// Which of the three hold after `invalidate`: "DPT".
  template <class Invalidate>
  std::string left(AddressSpaceId space, Invalidate invalidate) {
    const Stamps made = stamps(space);
    EXPECT_TRUE(generations_.holds(made.device) && generations_.holds(made.process) &&
                generations_.holds(made.translation));
    invalidate();
    return std::string(generations_.holds(made.device) ? "D" : "") +
           (generations_.holds(made.process) ? "P" : "") +
           (generations_.holds(made.translation) ? "T" : "");
  }
  Generations generations_;
};

// [iommu §3.8] [iommu §4.1.3]
TEST_F(GenerationsTest, DirectoriesAreForgottenByDeviceAndProcess) {
  for (const AddressSpaceId space : {kHostSpace, kGuestSpace}) {
    EXPECT_EQ(left(space, [&] { generations_.invalidate_all(); }), "");
    EXPECT_EQ(left(space, [&] { generations_.invalidate_device(kDevice); }), "");
    EXPECT_EQ(left(space, [&] { generations_.invalidate_device({4}); }), "DPT");
    EXPECT_EQ(left(space, [&] { generations_.invalidate_process(kDevice, kProcess); }), "D");
    EXPECT_EQ(left(space, [&] { generations_.invalidate_process(kDevice, 10); }), "DPT");
    EXPECT_EQ(left(space, [&] { generations_.invalidate_process({4}, kProcess); }), "DPT");
  }
}

// [iommu §4.1.1]
TEST_F(GenerationsTest, TheHostAndEachGuestAreApart) {
  const auto host = [&] { generations_.invalidate_domain(std::nullopt); };
  const auto guest = [&] { generations_.invalidate_domain(kGuestSpace.gscid); };
  const auto other = [&] { generations_.invalidate_domain(*kGuestSpace.gscid + 1); };
  const auto guests = [&] { generations_.invalidate_all_guests(); };
  EXPECT_EQ(left(kHostSpace, host), "D");
  EXPECT_EQ(left(kHostSpace, guest), "DPT");
  EXPECT_EQ(left(kHostSpace, guests), "DPT");
  EXPECT_EQ(left(kGuestSpace, host), "DPT");
  EXPECT_EQ(left(kGuestSpace, guest), "D") << "its second stage mapped the process directory";
  EXPECT_EQ(left(kGuestSpace, other), "DPT");
  EXPECT_EQ(left(kGuestSpace, guests), "D");
  const Stamps first = stamps({0, 1});
  const Stamps last = stamps({0xffff, 1});
  generations_.invalidate_all_guests();
  EXPECT_FALSE(generations_.holds(first.translation) || generations_.holds(last.translation));
}

// [iommu §4.1.1]
TEST_F(GenerationsTest, AnAddressSpaceIsThatOfItsDomain) {
  const auto space = [&](AddressSpaceId of) {
    return [this, of] { generations_.invalidate_address_space(of); };
  };
  EXPECT_EQ(left(kHostSpace, space(kHostSpace)), "DP");
  EXPECT_EQ(left(kHostSpace, space(kGuestSpace)), "DPT");
  EXPECT_EQ(left(kHostSpace, space({std::nullopt, 1235})), "DPT");
  EXPECT_EQ(left(kGuestSpace, space(kGuestSpace)), "DP");
  EXPECT_EQ(left(kGuestSpace, space(kHostSpace)), "DPT");
}

// [iommu §4.1.1]
TEST_F(GenerationsTest, APageIsForgottenByAnyOfItsAddresses) {
  for (const unsigned log2_size : {12U, 16U, 21U, 30U, 39U, 48U}) {
    const std::uint64_t size = std::uint64_t{1} << log2_size;
    for (const std::uint64_t at : {kAt.value, kAt.value ^ (size - 1), kAt.value & ~(size - 1)}) {
      const Stamps made = stamps(kHostSpace, log2_size);
      generations_.invalidate_range(kHostSpace, Iova{at}, 12);
      EXPECT_FALSE(generations_.holds(made.translation)) << log2_size;
      EXPECT_TRUE(generations_.holds(made.process));
    }
    const Stamps made = stamps(kHostSpace, log2_size);
    generations_.invalidate_range(kHostSpace, Iova{kAt.value ^ size}, 12);
    generations_.invalidate_range(kGuestSpace, kAt, 12);
    EXPECT_TRUE(generations_.holds(made.translation)) << log2_size;
  }
}

// [iommu §9.3]
TEST_F(GenerationsTest, ARangeTakesEveryPageThatItMeets) {
  for (const unsigned log2_size : {12U, 16U, 21U, 30U, 39U, 48U}) {
    for (unsigned log2_range = 13; log2_range <= 64; ++log2_range) {
      const std::uint64_t low = log2_range >= 64 ? ~std::uint64_t{0} : (1ULL << log2_range) - 1;
      for (const std::uint64_t at : {kAt.value & ~low, kAt.value, kAt.value | low}) {
        const Stamps made = stamps(kHostSpace, log2_size);
        generations_.invalidate_range(kHostSpace, Iova{at}, log2_range);
        EXPECT_FALSE(generations_.holds(made.translation)) << log2_size << " " << log2_range;
      }
    }
  }
  const Stamps made = stamps(kHostSpace);
  generations_.invalidate_range(kHostSpace, Iova{kAt.value ^ 0x10000}, 14);
  EXPECT_TRUE(generations_.holds(made.translation)) << "a range beside it";
}

// [iommu §3.8]
TEST_F(GenerationsTest, ATranslationThroughATableOutlivesTheInvalidationOfItsNeighbours) {
  for (const AddressSpaceId space : {kHostSpace, kGuestSpace}) {
    for (const unsigned log2_size : {12U, 16U}) {
      const auto made = [&] {
        Generations::LeafSnapshot snapshot(generations_);
        EXPECT_TRUE(snapshot.take(stamps(space, 21).translation, space, kAt));
        return snapshot.of_translation(log2_size);
      };
      const auto kept = made();
      EXPECT_TRUE(generations_.holds(kept));
      generations_.invalidate_range(space, Iova{kAt.value ^ 0x10'0000}, 12);
      EXPECT_TRUE(generations_.holds(kept));
      const std::uint64_t last = (std::uint64_t{1} << log2_size) - kPageBytes;
      for (const auto& invalidate : std::initializer_list<std::function<void()>>{
               [&] { generations_.invalidate_range(space, kAt, 12); },
               [&] { generations_.invalidate_range(space, Iova{kAt.value ^ last}, 12); },
               [&] { generations_.invalidate_address_space(space); },
               [&] { generations_.invalidate_domain(space.gscid); },
               [&] { generations_.invalidate_process(kDevice, kProcess); },
               [&] { generations_.invalidate_device(kDevice); }}) {
        const auto stamp = made();
        invalidate();
        EXPECT_FALSE(generations_.holds(stamp));
      }
    }
  }
}

TEST_F(GenerationsTest, WhatWasReadThroughATableBeforeAnInvalidationIsNotRemembered) {
  Generations::LeafSnapshot snapshot(generations_);
  ASSERT_TRUE(snapshot.take(stamps(kHostSpace, 21).translation, kHostSpace, kAt));
  EXPECT_TRUE(snapshot.table_holds());
  generations_.invalidate_range(kHostSpace, kAt, 12);  // while the leaf is read
  EXPECT_FALSE(snapshot.table_holds());
  EXPECT_FALSE(generations_.holds(snapshot.of_translation(12)));
}

TEST_F(GenerationsTest, WhatWasReadBeforeAnInvalidationIsNotRemembered) {
  Generations::Snapshot snapshot(generations_, kDevice, kProcess);
  snapshot.add_domain(std::nullopt);
  snapshot.add_space(kHostSpace, kAt);
  generations_.invalidate_range(kHostSpace, kAt, 12);  // while the tables are read
  EXPECT_FALSE(generations_.holds(snapshot.of_translation(12)));
  EXPECT_TRUE(generations_.holds(snapshot.of_process_context()));
}

}  // namespace
}  // namespace tandem::iommu::detail
