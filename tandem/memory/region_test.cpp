// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <map>
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

class RegionTest : public testing::Test {
 protected:
  /// The byte at `at`; none where the access faults.
  std::optional<int> byte(std::uint64_t at) const {
    std::array<std::byte, 1> got{};
    if (!memory_.read({at}, got).ok()) return std::nullopt;
    return std::to_integer<int>(got[0]);
  }
  static void expect_error(const Result<RegionId>& got, std::errc error) {
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error(), std::make_error_code(error));
  }
  Memory memory_;
};

// ---- priorities -------------------------------------------------------------------------------

TEST_F(RegionTest, TheHigherPriorityDecodesTheOverlap) {
  const HostPages low(4, 1);
  const HostPages high(2, 2);
  ASSERT_TRUE(memory_.add_host_ram({0x10000}, low.bytes()));
  const auto over = memory_.add_host_ram({0x11000}, high.bytes(), true, 1);
  ASSERT_TRUE(over);
  EXPECT_EQ(byte(0x10fff), 1);
  EXPECT_EQ(byte(0x11000), 2);
  EXPECT_EQ(byte(0x12fff), 2);
  EXPECT_EQ(byte(0x13000), 1);
  std::vector<std::byte> all(4 * kPageSize);
  EXPECT_TRUE(memory_.read({0x10000}, all).ok());
  EXPECT_EQ(std::ranges::count(all, std::byte{2}), 2 * kPageSize);
  // What shows again is in one piece, as before.
  ASSERT_TRUE(memory_.remove(*over));
  EXPECT_EQ(byte(0x12000), 1);
  EXPECT_EQ(memory_.host_pointer({0x10000}, 4 * kPageSize), low.bytes().data());
}

TEST_F(RegionTest, ALowerPriorityFillsTheGapsOnly) {
  const HostPages high(1, 2);
  const HostPages low(4, 1);
  ASSERT_TRUE(memory_.add_host_ram({0x11000}, high.bytes()));
  const auto under = memory_.add_host_ram({0x10000}, low.bytes(), true, -5);
  ASSERT_TRUE(under);
  EXPECT_EQ(byte(0x10000), 1);
  EXPECT_EQ(byte(0x11000), 2);
  EXPECT_EQ(byte(0x12000), 1);
  EXPECT_EQ(memory_.host_pointer({0x12000}, 0x2000), low.bytes().data() + 0x2000);
  ASSERT_TRUE(memory_.remove(*under));
  EXPECT_EQ(byte(0x10000), std::nullopt);
  EXPECT_EQ(byte(0x11000), 2);
}

TEST_F(RegionTest, EqualPrioritiesDoNotOverlap) {
  const HostPages pages(2);
  ASSERT_TRUE(memory_.add_host_ram({0x10000}, pages.bytes(), true, 3));
  expect_error(memory_.add_host_ram({0x11000}, pages.bytes(), true, 3), std::errc::file_exists);
  EXPECT_TRUE(memory_.add_host_ram({0x11000}, pages.bytes(), true, 2));
}

TEST_F(RegionTest, HidingARegionVoidsCachedHostPointers) {
  const HostPages low(1, 1);
  const HostPages high(1, 2);
  ASSERT_TRUE(memory_.add_host_ram({0x10000}, low.bytes()));
  const std::uint64_t before = memory_.version();
  ASSERT_TRUE(memory_.add_host_ram({0x20000}, high.bytes(), true, 1));
  EXPECT_EQ(memory_.version(), before);
  ASSERT_TRUE(memory_.add_host_ram({0x10000}, high.bytes(), true, 1));
  EXPECT_NE(memory_.version(), before);
}

TEST_F(RegionTest, ARegionThatHidesNothingLeavesCachedHostPointers) {
  const HostPages low(4, 1);
  const HostPages high(1, 2);
  ASSERT_TRUE(memory_.add_host_ram({0x10000}, high.bytes(), true, 1));
  const std::uint64_t before = memory_.version();
  ASSERT_TRUE(memory_.add_host_ram({0x10000}, low.bytes()));
  EXPECT_EQ(memory_.version(), before) << "it is below what was there";
  ASSERT_TRUE(memory_.add_host_ram({0x12000}, high.bytes(), true, 1));
  EXPECT_NE(memory_.version(), before);
}

TEST_F(RegionTest, AnyMixOfPrioritiesDecodesAsSaid) {
  // Against a model: the highest priority of those that hold the page.
  constexpr std::uint64_t kPages = 64;
  constexpr int kPriorities = 4;
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::vector<HostPages> fills;
  for (int fill = 0; fill < 200; ++fill) fills.emplace_back(8, fill);
  struct Added {
    RegionId id{};
    std::uint64_t page = 0, pages = 0;
    int priority = 0, fill = 0;
  };
  std::vector<Added> added;
  for (int step = 0; step < 400; ++step) {
    if (added.size() < 20 && random() % 3 != 0) {
      Added one;
      one.page = random() % kPages;
      one.pages = 1 + random() % 8;
      one.priority = static_cast<int>(random() % kPriorities);
      one.fill = step % 200;
      const bool meets = std::ranges::any_of(added, [&](const Added& other) {
        return other.priority == one.priority && other.page < one.page + one.pages &&
               one.page < other.page + other.pages;
      });
      const auto host = fills[static_cast<std::size_t>(one.fill)].bytes();
      const auto id = memory_.add_host_ram({one.page * kPageSize},
                                           host.first(one.pages * kPageSize), true, one.priority);
      ASSERT_EQ(id.has_value(), !meets);
      if (!id) continue;
      one.id = *id;
      added.push_back(one);
    } else if (!added.empty()) {
      const auto gone = added.begin() + static_cast<std::ptrdiff_t>(random() % added.size());
      ASSERT_TRUE(memory_.remove(gone->id));
      added.erase(gone);
    }
    for (std::uint64_t page = 0; page < kPages + 8; ++page) {
      const Added* top = nullptr;
      for (const Added& one : added) {
        if (page < one.page || page >= one.page + one.pages) continue;
        if (top == nullptr || one.priority > top->priority) top = &one;
      }
      ASSERT_EQ(byte(page * kPageSize + 7),
                top == nullptr ? std::nullopt : std::optional(top->fill))
          << "step " << step << " page " << page;
    }
  }
}

// ---- aliases ----------------------------------------------------------------------------------

TEST_F(RegionTest, AnAliasShowsOtherAddresses) {
  const HostPages ram(4, 1);
  ASSERT_TRUE(memory_.add_host_ram({0x10000}, ram.bytes()));
  ASSERT_TRUE(memory_.add_alias({0x50000}, 2 * kPageSize, PhysAddr{0x11000}));
  EXPECT_TRUE(memory_.store64({0x50008}, 77, std::memory_order_relaxed));
  EXPECT_EQ(*memory_.load64({0x11008}, std::memory_order_relaxed), 77u);
  EXPECT_EQ(memory_.host_pointer({0x50010}, 0x1ff0), ram.bytes().data() + 0x1010);
  EXPECT_EQ(memory_.host_pointer({0x50010}, 0x1ff1), nullptr);
  // Whatever is there now: another region, or none.
  const HostPages other(1, 9);
  const auto over = memory_.add_host_ram({0x12000}, other.bytes(), true, 1);
  EXPECT_EQ(byte(0x51000), 9);
  EXPECT_EQ(byte(0x50000), 1);
  ASSERT_TRUE(memory_.remove(*over));
  EXPECT_EQ(byte(0x51000), 1);
  ASSERT_TRUE(memory_.add_alias({0x60000}, kPageSize, PhysAddr{0x90000}));
  EXPECT_EQ(byte(0x60000), std::nullopt);
}

TEST_F(RegionTest, AnAliasReachesIoRegionsAtTheirOffsets) {
  const auto io = std::make_shared<BufferRegion>(2 * kPageSize);
  io->data[kPageSize + 5] = std::byte{42};
  ASSERT_TRUE(memory_.add_io({0x10000}, 2 * kPageSize, io));
  ASSERT_TRUE(memory_.add_alias({0x50000}, kPageSize, PhysAddr{0x11000}));
  EXPECT_EQ(byte(0x50005), 42);
}

TEST_F(RegionTest, AnAliasOfARegionSeesItEvenWhereItIsHidden) {
  const HostPages ram(2, 1);
  const HostPages cover(2, 2);
  const auto id = memory_.add_host_ram({0x10000}, ram.bytes());
  ASSERT_TRUE(memory_.add_host_ram({0x10000}, cover.bytes(), true, 1));
  const auto window = memory_.add_alias({0x50000}, kPageSize, *id, kPageSize);
  ASSERT_TRUE(window);
  EXPECT_EQ(byte(0x11000), 2);
  EXPECT_EQ(byte(0x50000), 1);
  const auto second = memory_.add_alias({0x60000}, kPageSize, *window, 0);
  EXPECT_EQ(byte(0x60000), 1);
  EXPECT_EQ(memory_.remove(*id).error(), std::make_error_code(std::errc::device_or_resource_busy));
  ASSERT_TRUE(memory_.remove(*window));
  EXPECT_EQ(byte(0x60000), 1);
  ASSERT_TRUE(memory_.remove(*second));
  EXPECT_TRUE(memory_.remove(*id));
}

TEST_F(RegionTest, AReadOnlyAliasRefusesWrites) {
  const HostPages ram(1, 1);
  const HostPages rom(1, 2);
  ASSERT_TRUE(memory_.add_host_ram({0x10000}, ram.bytes()));
  const auto id = memory_.add_host_ram({0x20000}, rom.bytes(), false);
  ASSERT_TRUE(memory_.add_alias({0x50000}, kPageSize, PhysAddr{0x10000}, false));
  ASSERT_TRUE(memory_.add_alias({0x60000}, kPageSize, PhysAddr{0x20000}));
  ASSERT_TRUE(memory_.add_alias({0x70000}, kPageSize, *id, 0));
  for (const std::uint64_t at : {0x50000u, 0x60000u, 0x70000u}) {
    EXPECT_EQ(memory_.store32({at}, 1, std::memory_order_relaxed).error(), Fault::kReadOnly);
    EXPECT_EQ(memory_.host_pointer({at}, 1), nullptr);
  }
  EXPECT_TRUE(memory_.store32({0x10000}, 1, std::memory_order_relaxed));
}

TEST_F(RegionTest, AliasesThatLeadInACircleDecodeNothing) {
  ASSERT_TRUE(memory_.add_alias({0x10000}, kPageSize, PhysAddr{0x20000}));
  ASSERT_TRUE(memory_.add_alias({0x20000}, kPageSize, PhysAddr{0x10000}));
  EXPECT_EQ(byte(0x10000), std::nullopt);
  const HostPages ram(1, 3);
  ASSERT_TRUE(memory_.add_host_ram({0x100000}, ram.bytes()));
  for (std::uint64_t i = 0; i < 9; ++i) {
    ASSERT_TRUE(memory_.add_alias({0x101000 + i * kPageSize}, kPageSize,
                                  PhysAddr{0x100000 + i * kPageSize}));
  }
  EXPECT_EQ(byte(0x108000), 3);
  EXPECT_EQ(byte(0x109000), std::nullopt);
}

TEST_F(RegionTest, AliasesOutsideOfTheirRegionAreRefused) {
  const HostPages ram(2);
  const auto id = memory_.add_host_ram({0x10000}, ram.bytes());
  expect_error(memory_.add_alias({0x50000}, kPageSize, *id, 2 * kPageSize),
               std::errc::invalid_argument);
  expect_error(memory_.add_alias({0x50000}, kPageSize, *id, 8), std::errc::invalid_argument);
  expect_error(memory_.add_alias({0x50000}, kPageSize, PhysAddr{8}), std::errc::invalid_argument);
  expect_error(memory_.add_alias({0x50000}, kPageSize, RegionId{99}, 0),
               std::errc::no_such_file_or_directory);
}

// ---- while accesses run -----------------------------------------------------------------------

TEST(RegionStress, OverlaysAndWindowsComeAndGoUnderAccesses) {
  // A page of 1s is covered again and again by memory that is freed when remove() returns, and
  // shown through windows: an access finds one or the other, whole words, and nothing freed.
  Memory memory;
  const HostPages ram(1, 1);
  ASSERT_TRUE(memory.add_host_ram({0x10000}, ram.bytes()));
  ASSERT_TRUE(memory.add_alias({0x20000}, kPageSize, PhysAddr{0x10000}));
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> covered{0}, shown{0};
  const auto judge = [&](std::byte first) {
    EXPECT_TRUE(first == std::byte{1} || first == std::byte{2}) << std::to_integer<int>(first);
    if (first == std::byte{2}) covered.fetch_add(1, std::memory_order_relaxed);
  };
  std::vector<std::jthread> readers;
  for (int t = 0; t < 3; ++t) {
    readers.emplace_back([&, t] {
      std::vector<std::byte> buffer(kPageSize);
      while (!stop) {
        const PhysAddr at{t == 0 ? 0x20000u : 0x10000u};
        ASSERT_TRUE(memory.read(at, buffer).ok());
        for (const std::byte one : buffer) ASSERT_EQ(one, buffer[0]);
        judge(buffer[0]);
        const auto word = memory.load64(at.plus(8), std::memory_order_relaxed);
        ASSERT_TRUE(word);
        judge(static_cast<std::byte>(*word));
        if (memory.read({0x30000}, buffer).ok()) {
          judge(buffer[0]);
          shown.fetch_add(1, std::memory_order_relaxed);
        }
      }
    });
  }
  for (int round = 0; round < 300 || covered < 100 || shown < 100; ++round) {
    auto* const host = static_cast<std::byte*>(std::aligned_alloc(kPageSize, kPageSize));
    std::memset(host, 2, kPageSize);
    const auto over = memory.add_host_ram({0x10000}, {host, kPageSize}, true, 1);
    ASSERT_TRUE(over);
    const auto window = memory.add_alias({0x30000}, kPageSize, *over, 0);
    ASSERT_TRUE(window);
    if (round % 2 == 0) std::this_thread::yield();
    ASSERT_TRUE(memory.remove(*window));
    ASSERT_TRUE(memory.remove(*over));
    std::memset(host, 0xa5, kPageSize);
    std::free(host);  // NOLINT
    if (testing::Test::HasFailure()) break;
  }
  stop = true;
}

}  // namespace
}  // namespace tandem::memory
