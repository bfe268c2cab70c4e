// SPDX-License-Identifier: Apache-2.0
#include "tandem/memory/reader.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "tandem/base/mapping.hpp"

namespace tandem::memory {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

class NoMemory : public IoRegion {
 public:
  Outcome read(std::uint64_t, std::span<std::byte>) override { return {0, Fault::kRefused}; }
  Outcome write(std::uint64_t, std::span<const std::byte>) override { return {0, Fault::kRefused}; }
};

/// Two pages at 0x1000 filled with 1, a read-only one at 0x4000 filled with 2, I/O at 0x6000.
class ReaderTest : public ::testing::Test {
 protected:
  ReaderTest() : host_(std::move(*Mapping::anonymous(3 * kPageSize))) {
    std::memset(host_.data(), 1, 2 * kPageSize);
    std::memset(host_.data() + 2 * kPageSize, 2, kPageSize);
    EXPECT_TRUE(memory_.add_host_ram({0x1000}, host_.bytes().first(2 * kPageSize)));
    EXPECT_TRUE(memory_.add_host_ram({0x4000}, host_.bytes().subspan(2 * kPageSize), false));
    EXPECT_TRUE(memory_.add_io({0x6000}, kPageSize, std::make_shared<NoMemory>()));
  }
  Mapping host_;
  Memory memory_;
};

TEST_F(ReaderTest, WordsOfEveryRegionAreReadInAnyOrder) {
  Memory::Reader reader(memory_);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(reader.load64({0x1000}, kRelaxed).value(), 0x0101010101010101U);
    EXPECT_EQ(reader.load64({0x2ff8}, kRelaxed).value(), 0x0101010101010101U);
    EXPECT_EQ(reader.load32({0x4ffc}, kRelaxed).value(), 0x02020202U);
    EXPECT_EQ(reader.load64({0x3000}, kRelaxed).error(), Fault::kNoRegion);
    EXPECT_EQ(reader.load64({0xff8}, kRelaxed).error(), Fault::kNoRegion);
    EXPECT_EQ(reader.load64({0x6000}, kRelaxed).error(), Fault::kMisaligned) << "no host RAM";
    EXPECT_EQ(reader.load64({0x1004}, kRelaxed).error(), Fault::kMisaligned);
    EXPECT_EQ(reader.load32({0x1002}, kRelaxed).error(), Fault::kMisaligned);
  }
}

TEST_F(ReaderTest, StoresTakeAWritableRegion) {
  Memory::Reader reader(memory_);
  EXPECT_TRUE(reader.store64({0x1008}, 0x1122'3344'5566'7788, kRelaxed));
  EXPECT_EQ(reader.load32({0x100c}, kRelaxed).value(), 0x1122'3344U);
  EXPECT_TRUE(reader.store32({0x100c}, 5, kRelaxed));
  EXPECT_EQ(reader.load64({0x1008}, kRelaxed).value(), 0x5'5566'7788U);
  EXPECT_EQ(reader.store64({0x4000}, 1, kRelaxed).error(), Fault::kReadOnly);
  EXPECT_EQ(reader.store32({0x4000}, 1, kRelaxed).error(), Fault::kReadOnly);
  EXPECT_EQ(reader.store32({0x3000}, 1, kRelaxed).error(), Fault::kNoRegion);
}

TEST_F(ReaderTest, ACompareAndExchangeStoresOnlyOverWhatIsExpected) {
  Memory::Reader reader(memory_);
  ASSERT_TRUE(reader.store64({0x1008}, 7, kRelaxed));
  EXPECT_EQ(reader.compare_exchange64({0x1008}, 1, 2).value(), 7U);
  EXPECT_EQ(reader.compare_exchange64({0x1008}, 7, std::uint64_t{3} << 32 | 2).value(), 7U);
  EXPECT_EQ(reader.compare_exchange32({0x1008}, 1, 9).value(), 2U);
  EXPECT_EQ(reader.compare_exchange32({0x1008}, 2, 9).value(), 2U);
  EXPECT_EQ(reader.load64({0x1008}, kRelaxed).value(), std::uint64_t{3} << 32 | 9)
      << "the other half stays";
  EXPECT_EQ(reader.compare_exchange32({0x4000}, 1, 1).error(), Fault::kReadOnly);
  EXPECT_EQ(reader.compare_exchange64({0x1004}, 1, 1).error(), Fault::kMisaligned);
}

TEST_F(ReaderTest, ARegionAddedMeanwhileIsFound) {
  Memory::Reader reader(memory_);
  EXPECT_EQ(reader.load64({0x8000}, kRelaxed).error(), Fault::kNoRegion);
  ASSERT_TRUE(memory_.add_host_ram({0x8000}, host_.bytes().first(kPageSize)));
  EXPECT_EQ(reader.load64({0x8000}, kRelaxed).value(), 0x0101010101010101U);
}

TEST_F(ReaderTest, StressARegionStaysWhileAReaderThatFoundItLasts) {
  constexpr std::uint64_t kGood = 0x5a5a5a5a5a5a5a5a;
  const Mapping page = std::move(*Mapping::anonymous(kPageSize));
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> hits{0};
  std::vector<std::jthread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      while (!stop) {
        Memory::Reader reader(memory_);
        if (!reader.load64({0x10008}, kRelaxed)) continue;
        ++hits;
        for (int i = 0; i < 32; ++i) {
          if (i % 8 == 7) std::this_thread::yield();
          EXPECT_EQ(reader.load64({0x10008}, kRelaxed).value_or(kGood), kGood);
        }
      }
    });
  }
  for (int round = 0; (round < 300 || hits < 100) && !HasFailure(); ++round) {
    const std::atomic_ref<std::uint64_t> word(reinterpret_cast<std::uint64_t*>(page.data())[1]);
    word.store(kGood, kRelaxed);
    const auto id = memory_.add_host_ram({0x10000}, page.bytes());
    ASSERT_TRUE(id);
    std::this_thread::yield();
    ASSERT_TRUE(memory_.remove(*id));
    word.store(~kGood, kRelaxed);
  }
  stop = true;
}

}  // namespace
}  // namespace tandem::memory
