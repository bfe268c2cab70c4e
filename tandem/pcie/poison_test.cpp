// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <vector>

#include "tandem/pcie/detail/test_bench.hpp"
#include "tandem/pcie/pcie.hpp"

namespace tandem::pcie {
namespace {

using Bench = detail::TestBench;
using Reason = DmaFault::Reason;
constexpr std::uint64_t kPage = kPageSize;
constexpr Pasid kPasid{1};
constexpr std::uint64_t kVa = 0x7f12'3456'7000;

class PoisonedMemoryTest : public testing::Test {
 protected:
  PoisonedMemoryTest() {
    bench.bind(kPasid);
    physical = bench.allocate(4);
    for (std::uint64_t i = 0; i < 4; ++i) bench.map(kPasid, kVa + i * kPage, physical + i * kPage);
    bench.on_page_request = [](const auto&) {
      ADD_FAILURE() << "a page request does not mend memory";
      return iommu::PageResponse::Code::kSuccess;
    };
  }
  Bench bench;
  std::uint64_t physical = 0;
};

// Catches the planted fault memory-poison-keeps-version.
TEST_F(PoisonedMemoryTest, IsFoundThroughACachedTranslation) {
  const auto endpoint = bench.endpoint();
  const AddressSpace space = endpoint->space(kPasid);
  std::vector<std::byte> buffer(kPage);
  ASSERT_TRUE(space.read({kVa}, buffer).ok());
  ASSERT_TRUE(bench.memory.set_poison({physical + 0x100}, 8));
  for (int i = 0; i < 2; ++i) {
    const DmaResult result = space.read({kVa}, buffer);
    ASSERT_TRUE(result.fault);
    EXPECT_EQ(result.fault->reason, Reason::kPoisoned);
    EXPECT_EQ(result.fault->address.value, kVa + 0x100);
    EXPECT_EQ(result.done_bytes, 0x100u);
  }
  EXPECT_FALSE(space.copy_cached({kVa}, {kVa + kPage}, kPage));
  EXPECT_EQ(space.map({kVa}, kPage, Access::kRead).error().reason, Reason::kNotMappable);
  EXPECT_TRUE(space.read({kVa + 0x108}, std::span(buffer).first(64)).ok());
}

TEST_F(PoisonedMemoryTest, IsMendedByWritingIt) {
  const auto endpoint = bench.endpoint();
  const AddressSpace space = endpoint->space(kPasid);
  ASSERT_TRUE(bench.memory.set_poison({physical + 2 * kPage}, 16));
  std::vector<std::byte> buffer(3 * kPage, std::byte{3});
  ASSERT_TRUE(space.write({kVa}, std::span(buffer).first(2 * kPage + 12)).ok());
  const DmaResult result = space.read({kVa}, buffer);
  EXPECT_EQ(result.done_bytes, 2 * kPage + 8) << "the last granule was written in part";
  ASSERT_TRUE(space.write({kVa}, buffer).ok());
  EXPECT_TRUE(space.read({kVa}, buffer).ok());
}

TEST_F(PoisonedMemoryTest, IsFoundWithoutAts) {
  const auto endpoint = bench.endpoint({.ats = false, .pri = false});
  ASSERT_TRUE(bench.memory.set_poison({physical + kPage + 8}, 8));
  std::vector<std::byte> buffer(4 * kPage);
  const DmaResult result = endpoint->space(kPasid).read({kVa}, buffer);
  EXPECT_EQ(result.done_bytes, kPage + 8);
  EXPECT_EQ(result.fault->reason, Reason::kPoisoned);
}

// Catches the planted fault memory-hide-keeps-version.
TEST_F(PoisonedMemoryTest, MemoryThatIsCoveredIsNotReachedThroughACachedTranslation) {
  const auto endpoint = bench.endpoint();
  const AddressSpace space = endpoint->space(kPasid);
  std::array<std::byte, 8> word{};
  ASSERT_TRUE(space.read({kVa}, word).ok());
  EXPECT_EQ(word[0], std::byte{0});
  const auto cover = *Mapping::anonymous(kPage);
  std::memset(cover.data(), 9, kPage);
  const auto over = bench.memory.add_host_ram({physical}, cover.bytes(), true, 1);
  ASSERT_TRUE(over);
  ASSERT_TRUE(space.read({kVa}, word).ok());
  EXPECT_EQ(word[0], std::byte{9});
  ASSERT_TRUE(bench.memory.remove(*over));
  ASSERT_TRUE(space.read({kVa}, word).ok());
  EXPECT_EQ(word[0], std::byte{0});
}

TEST_F(PoisonedMemoryTest, ConcernsItsPageOfASuperpageOnly) {
  constexpr std::uint64_t kSuperpage = 2 << 20;
  constexpr std::uint64_t kAt = 0x7f00'0000'0000;
  const std::uint64_t memory = Bench::kArena + 2 * kSuperpage;
  bench.map(kPasid, kAt, memory, Bench::Permission::kReadWrite, 1);
  const auto endpoint = bench.endpoint();
  const AddressSpace space = endpoint->space(kPasid);
  ASSERT_TRUE(bench.memory.set_poison({memory + 5 * kPage}, 8));
  std::array<std::byte, 8> word{};
  EXPECT_EQ(space.read({kAt + 5 * kPage}, word).fault->reason, Reason::kPoisoned);
  EXPECT_TRUE(space.map({kAt + 6 * kPage}, kPage, Access::kRead)) << "another page";
  ASSERT_TRUE(space.write({kAt + 5 * kPage}, word).ok());
  ASSERT_TRUE(bench.unmap(kPasid, kAt, 1));
  bench.map(kPasid, kAt, memory, Bench::Permission::kReadWrite, 1);
  EXPECT_TRUE(space.map({kAt}, kSuperpage, Access::kRead)) << "mended";
}

}  // namespace
}  // namespace tandem::pcie
