// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <vector>

#include "tandem/pcie/detail/test_bench.hpp"
#include "tandem/pcie/pcie.hpp"

namespace tandem::pcie {
namespace {

using Permission = detail::TestBench::Permission;

constexpr std::uint64_t kPage = kPageSize;
constexpr Pasid kPasid{7};
constexpr std::uint64_t kFrom = 0x10'0000;
constexpr std::uint64_t kTo = 0x20'0000;

/// One page to copy from, one to copy to.
class CopyCached : public testing::Test {
 protected:
  CopyCached() : endpoint(bench.endpoint()), space(endpoint->space(kPasid)) {
    bench.bind(kPasid);
    bench.map(kPasid, kFrom, from);
    bench.map(kPasid, kTo, to);
    std::iota(reinterpret_cast<unsigned char*>(bench.host(from)),
              reinterpret_cast<unsigned char*>(bench.host(from)) + kPage, 1);
  }
  /// Brings both translations into the cache.
  void touch() {
    std::array<std::byte, 1> byte{};
    EXPECT_TRUE(space.read({kFrom}, byte).ok());
    EXPECT_TRUE(space.write({kTo}, byte).ok());
  }
  bool equal(std::size_t length) const {
    return std::memcmp(bench.host(from), bench.host(to), length) == 0;
  }

  detail::TestBench bench;
  const std::uint64_t from = bench.allocate();
  const std::uint64_t to = bench.allocate();
  std::unique_ptr<Endpoint> endpoint;
  AddressSpace space;
};

TEST_F(CopyCached, CopiesWhatTheCacheKnowsAndNothingElse) {
  EXPECT_FALSE(space.copy_cached({kFrom}, {kTo}, 100));
  EXPECT_FALSE(equal(100));
  touch();
  EXPECT_TRUE(space.copy_cached({kFrom}, {kTo}, 100));
  EXPECT_TRUE(equal(100));
  EXPECT_FALSE(equal(kPage));
}

TEST_F(CopyCached, OverlappingRangesAreCopiedAsMemmoveDoes) {
  std::array<std::byte, 1> byte{};
  ASSERT_TRUE(space.read({kFrom}, byte).ok());
  ASSERT_TRUE(space.write({kFrom}, byte).ok());
  std::vector<std::byte> expected(bench.host(from), bench.host(from) + kPage);
  std::memmove(expected.data() + 10, expected.data(), 1000);
  EXPECT_TRUE(space.copy_cached({kFrom}, {kFrom + 10}, 1000));
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), bench.host(from)));
}

TEST_F(CopyCached, ARangeBeyondTheTranslationIsLeftToReadAndWrite) {
  touch();
  EXPECT_FALSE(space.copy_cached({kFrom + 1}, {kTo}, kPage));
  EXPECT_FALSE(space.copy_cached({kFrom}, {kTo + 1}, kPage));
  EXPECT_FALSE(space.copy_cached({kFrom}, {~std::uint64_t{0} - 5}, 100));
}

TEST_F(CopyCached, AReadOnlyTargetIsNotWritten) {
  const std::uint64_t target = bench.allocate();
  bench.map(kPasid, kTo + kPage, target, Permission::kRead);
  touch();
  std::array<std::byte, 1> byte{};
  ASSERT_TRUE(space.read({kTo + kPage}, byte).ok());
  EXPECT_FALSE(space.copy_cached({kFrom}, {kTo + kPage}, 64));
  EXPECT_EQ(bench.host(target)[1], std::byte{0});
}

TEST_F(CopyCached, AfterAnInvalidationNothingIsCached) {
  touch();
  ASSERT_TRUE(bench.unmap(kPasid, kTo));
  EXPECT_FALSE(space.copy_cached({kFrom}, {kTo}, 64));
  EXPECT_FALSE(equal(64));
}

TEST_F(CopyCached, AnotherPasidsTranslationsDoNotServe) {
  touch();
  bench.bind({8});
  EXPECT_FALSE(endpoint->space(Pasid{8}).copy_cached({kFrom}, {kTo}, 64));
}

TEST_F(CopyCached, CountsTwoLookupsThatHit) {
  touch();
  const EndpointStats before = Endpoint::thread_stats();
  ASSERT_TRUE(space.copy_cached({kFrom}, {kTo}, 64));
  const EndpointStats after = Endpoint::thread_stats();
  EXPECT_EQ(after.translations - before.translations, 2u);
  EXPECT_EQ(after.atc_hits - before.atc_hits, 2u);
}

}  // namespace
}  // namespace tandem::pcie
