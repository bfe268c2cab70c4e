// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/random.hpp"

#include <gtest/gtest.h>

#include <array>
#include <set>

namespace tandem::kxo {
namespace {

TEST(RandomTest, AStreamFollowsFromItsKeyAlone) {
  Random first({7, 3}, 2), second({7, 3}, 2);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(first(), second());
}

// Saved games and models are played again with these numbers.
TEST(RandomTest, StaysTheSameFromReleaseToRelease) {
  Random random({1, 2}, 3);
  EXPECT_EQ(random(), 0x85121639270dd83cULL);
  EXPECT_EQ(random(), 0x6b67ad0decf01debULL);
}

TEST(RandomTest, SeedsGamesAndStreamsDiffer) {
  std::set<std::uint64_t> seen;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    for (std::uint64_t game = 0; game < 20; ++game) {
      for (std::uint64_t stream = 0; stream < 20; ++stream) {
        Random random({seed, game}, stream);
        for (int i = 0; i < 4; ++i) seen.insert(random());
      }
    }
  }
  EXPECT_EQ(seen.size(), 20U * 20 * 20 * 4);
}

TEST(RandomTest, NumbersBelowABoundAreEquallyLikely) {
  Random random({5, 5});
  std::array<int, 7> counts{};
  for (int i = 0; i < 70'000; ++i) ++counts.at(random.below(7));
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 500);  // five standard deviations
  double sum = 0;
  for (int i = 0; i < 10'000; ++i) {
    const double unit = random.unit();
    ASSERT_GE(unit, 0);
    ASSERT_LT(unit, 1);
    sum += unit;
  }
  EXPECT_NEAR(sum, 5'000, 150);
}

}  // namespace
}  // namespace tandem::kxo
