// SPDX-License-Identifier: Apache-2.0
#include "tandem/memory/detail/poison.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "tandem/memory/memory.hpp"
#include "tandem/memory/test_memory.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::memory {
namespace {

using test::BufferRegion;
using test::HostPages;
constexpr auto kRelaxed = std::memory_order_relaxed;

class PoisonTest : public testing::Test {
 protected:
  PoisonTest() : ram_(8, 7) { EXPECT_TRUE(memory_.add_host_ram({0x10000}, ram_.bytes())); }
  Outcome read(std::uint64_t at, std::size_t length) {
    buffer_.assign(length, std::byte{0xee});
    return memory_.read({at}, buffer_);
  }
  Outcome write(std::uint64_t at, std::size_t length) {
    return memory_.write({at}, std::vector<std::byte>(length, std::byte{9}));
  }
  HostPages ram_;
  Memory memory_;
  std::vector<std::byte> buffer_;
};

TEST_F(PoisonTest, AReadFaultsAtTheExactByteAfterTheGoodOnes) {
  ASSERT_TRUE(memory_.set_poison({0x11008}, 8));
  const Outcome across = read(0x10ffd, 100);
  EXPECT_EQ(across.fault, Fault::kPoisoned);
  EXPECT_EQ(across.done_bytes, 11u);
  EXPECT_EQ(buffer_[10], std::byte{7});
  EXPECT_EQ(buffer_[11], std::byte{0xee});
  const Outcome inside = read(0x1100b, 1);
  EXPECT_EQ(inside.fault, Fault::kPoisoned);
  EXPECT_EQ(inside.done_bytes, 0u);
  EXPECT_TRUE(read(0x11010, 100).ok());
  EXPECT_TRUE(read(0x10000, 0x1008).ok());
}

TEST_F(PoisonTest, ARangePoisonsEveryGranuleThatItMeets) {
  ASSERT_TRUE(memory_.set_poison({0x1100f}, 2));
  EXPECT_TRUE(read(0x11000, 8).ok());
  EXPECT_FALSE(read(0x11008, 1).ok());
  EXPECT_FALSE(read(0x11017, 1).ok());
  EXPECT_TRUE(read(0x11018, 8).ok());
  ASSERT_TRUE(memory_.set_poison({0x12000}, 2 * kPageSize));
  for (const std::uint64_t at : {0x12000u, 0x121f8u, 0x12200u, 0x13fffu}) {
    EXPECT_FALSE(read(at, 1).ok()) << std::hex << at;
  }
  EXPECT_EQ(read(0x11018, 3 * kPageSize).done_bytes, 0x12000u - 0x11018u);
  EXPECT_TRUE(read(0x14000, kPageSize).ok());
}

TEST_F(PoisonTest, WordsOfAPoisonedGranuleCannotBeLoadedOrUpdated) {
  ASSERT_TRUE(memory_.set_poison({0x10008}, 1));
  EXPECT_EQ(memory_.load64({0x10008}, kRelaxed).error(), Fault::kPoisoned);
  EXPECT_EQ(memory_.load32({0x10008}, kRelaxed).error(), Fault::kPoisoned);
  EXPECT_EQ(memory_.load32({0x1000c}, kRelaxed).error(), Fault::kPoisoned);
  EXPECT_EQ(memory_.compare_exchange64({0x10008}, 0x0707070707070707, 1).error(), Fault::kPoisoned);
  EXPECT_EQ(memory_.set_bits64({0x10008}, 1).error(), Fault::kPoisoned);
  EXPECT_TRUE(memory_.load64({0x10000}, kRelaxed));
  EXPECT_TRUE(memory_.load64({0x10010}, kRelaxed));
}

TEST_F(PoisonTest, WritingAWholeGranuleTakesItsPoison) {
  ASSERT_TRUE(memory_.set_poison({0x10000}, 64));
  EXPECT_TRUE(memory_.store64({0x10000}, 5, kRelaxed));
  EXPECT_EQ(*memory_.load64({0x10000}, kRelaxed), 5u);
  EXPECT_TRUE(write(0x1000c, 21).ok());  // the granules at 0x10010 and 0x10018 are written whole
  EXPECT_FALSE(read(0x1000c, 1).ok());
  EXPECT_TRUE(read(0x10010, 16).ok());
  EXPECT_EQ(buffer_[0], std::byte{9});
  EXPECT_FALSE(read(0x10020, 1).ok());
}

TEST_F(PoisonTest, WritingAPartOfAGranuleLeavesItPoisoned) {
  ASSERT_TRUE(memory_.set_poison({0x10000}, 8));
  EXPECT_TRUE(memory_.store32({0x10000}, 5, kRelaxed));
  EXPECT_TRUE(write(0x10004, 3).ok());
  EXPECT_EQ(memory_.load32({0x10000}, kRelaxed).error(), Fault::kPoisoned);
  ASSERT_TRUE(memory_.clear_poison({0x10000}, 1));
  EXPECT_EQ(*memory_.load32({0x10000}, kRelaxed), 5u);
  EXPECT_EQ(*memory_.load32({0x10004}, kRelaxed), 0x07090909u);
}

TEST_F(PoisonTest, ClearingGivesBackTheGranulesAsked) {
  ASSERT_TRUE(memory_.set_poison({0x10000}, kPageSize));
  ASSERT_TRUE(memory_.clear_poison({0x10100}, 0x100));
  EXPECT_FALSE(read(0x100ff, 1).ok());
  EXPECT_TRUE(read(0x10100, 0x100).ok());
  EXPECT_FALSE(read(0x10200, 1).ok());
  EXPECT_TRUE(memory_.clear_poison({0x14000}, kPageSize));  // never was any
}

TEST_F(PoisonTest, HostPointersAndTargetsStopAtPoison) {
  ASSERT_TRUE(memory_.set_poison({0x10100}, 8));
  EXPECT_EQ(memory_.host_pointer({0x10000}, kPageSize), nullptr);
  EXPECT_NE(memory_.host_pointer({0x10000}, 0x100), nullptr);
  EXPECT_NE(memory_.host_pointer({0x11000}, kPageSize), nullptr);
  const std::scoped_lock reader(rcu::rcu_default_domain());
  EXPECT_EQ(memory_.resolve({0x10000}, kPageSize, false).length, 0x100u);
  EXPECT_EQ(memory_.resolve({0x10100}, 8, false).fault, Fault::kPoisoned);
  const Target target = memory_.resolve({0x10000}, kPageSize, true);
  EXPECT_EQ(target.length, kPageSize);
  target.store(std::vector<std::byte>(kPageSize, std::byte{3}));
  EXPECT_NE(memory_.host_pointer({0x10000}, kPageSize), nullptr);
}

TEST_F(PoisonTest, VoidsCachedHostPointers) {
  const std::uint64_t before = memory_.version();
  ASSERT_TRUE(memory_.set_poison({0x10000}, 8));
  EXPECT_NE(memory_.version(), before);
}

TEST_F(PoisonTest, BelongsToTheMemoryNotToTheAddress) {
  const HostPages cover(1, 5);
  ASSERT_TRUE(memory_.add_alias({0x50000}, kPageSize, PhysAddr{0x10000}));
  ASSERT_TRUE(memory_.set_poison({0x50008}, 8));
  EXPECT_FALSE(read(0x10008, 8).ok());
  const auto over = memory_.add_host_ram({0x10000}, cover.bytes(), true, 1);
  EXPECT_TRUE(read(0x10008, 8).ok());
  ASSERT_TRUE(memory_.remove(*over));
  EXPECT_FALSE(read(0x50008, 8).ok());
}

TEST_F(PoisonTest, OnlyHostRamIsPoisonedAndAllOfTheRangeOrNothing) {
  ASSERT_TRUE(memory_.add_io({0x18000}, kPageSize, std::make_shared<BufferRegion>(kPageSize)));
  EXPECT_EQ(memory_.set_poison({0x17ff8}, 16).error(), Fault::kMisaligned);
  EXPECT_TRUE(read(0x17ff8, 8).ok());
  EXPECT_EQ(memory_.set_poison({0x19000}, 8).error(), Fault::kNoRegion);
  EXPECT_EQ(memory_.clear_poison({0x0fff8}, 16).error(), Fault::kNoRegion);
}

TEST(PoisonStress, NoReadAfterSetPoisonReturnsSeesTheMemory) {
  // One thread poisons, spoils and mends a page in turn while others read and write elsewhere in
  // it: who reads without a fault has read good bytes.
  HostPages ram(2, 1);
  Memory memory;
  ASSERT_TRUE(memory.add_host_ram({0x10000}, ram.bytes()));
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> good{0}, bad{0};
  std::vector<std::jthread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::vector<std::byte> buffer(256);
      while (!stop) {
        const Outcome outcome = memory.read({0x10000}, buffer);
        for (std::size_t i = 0; i < outcome.done_bytes; ++i) {
          ASSERT_EQ(buffer[i], std::byte{1});
        }
        const auto word = memory.load64({0x10040}, std::memory_order_acquire);
        if (word) {
          ASSERT_EQ(*word, 0x0101010101010101u);
        }
        (outcome.ok() ? good : bad).fetch_add(1, kRelaxed);
        const PhysAddr own{0x11000 + 512u * static_cast<unsigned>(t)};
        ASSERT_TRUE(memory.write(own, buffer).ok());
      }
    });
  }
  const std::vector<std::byte> mended(256, std::byte{1});
  for (int round = 0; round < 100 || good < 50 || bad < 50; ++round) {
    ASSERT_TRUE(memory.set_poison({0x10000}, 256));
    std::memset(ram.bytes().data(), 0xbd, 256);  // nobody reads it any more
    if (round % 2 == 0) std::this_thread::yield();
    ASSERT_TRUE(memory.write({0x10000}, mended).ok());
    for (int i = 0; i < 3; ++i) std::this_thread::yield();
    if (testing::Test::HasFailure()) break;
  }
  stop = true;
}

TEST_F(PoisonTest, ALongWriteTakesThePoisonAlsoWhereItsPiecesMeet) {
  constexpr std::size_t kPages = 40;  // written in several pieces
  const HostPages ram(kPages, 7);
  ASSERT_TRUE(memory_.add_host_ram({0x10'0000}, ram.bytes()));
  ASSERT_TRUE(memory_.set_poison({0x10'0000}, kPages * kPageSize));
  ASSERT_TRUE(write(0x10'0004, kPages * kPageSize - 4).ok());
  EXPECT_TRUE(read(0x10'0008, kPages * kPageSize - 8).ok());
  EXPECT_EQ(read(0x10'0000, 8).fault, Fault::kPoisoned) << "written in part";
}

// A gigabyte's worth of search is not to cost a gigabyte's worth of bits.
TEST(PoisonMapTest, FindsTheFirstOfManyGroupsAsAPlainSearchDoes) {
  constexpr std::uint64_t kBytes = std::uint64_t{8} << 20;
  constexpr std::uint64_t kGranules = kBytes / kPoisonBytes;
  const auto map = detail::PoisonMap::create(kBytes);
  std::vector<bool> plain(kGranules);
  std::minstd_rand random(7);
  const auto change = [&](bool poison) {
    const std::uint64_t first = random() % kGranules;
    const std::uint64_t count = std::min<std::uint64_t>(1 + random() % 9, kGranules - first);
    poison ? map->set(first * kPoisonBytes, count * kPoisonBytes)
           : map->clear(first * kPoisonBytes, count * kPoisonBytes);
    std::fill_n(plain.begin() + static_cast<std::ptrdiff_t>(first), count, poison);
  };
  for (int round = 0; round < 200; ++round) {
    change(round % 4 != 3);
    const std::uint64_t first = random() % kBytes;
    const std::uint64_t length = 1 + random() % (kBytes - first);
    std::optional<std::uint64_t> expected;
    for (std::uint64_t at = first / kPoisonBytes; at * kPoisonBytes < first + length; ++at) {
      if (!plain[at]) continue;
      expected = std::max(first, at * kPoisonBytes);
      break;
    }
    ASSERT_EQ(map->find(first, length), expected) << "round " << round;
  }
  EXPECT_EQ(detail::PoisonMap::create(kBytes)->find(0, kBytes), std::nullopt);
}

}  // namespace
}  // namespace tandem::memory
