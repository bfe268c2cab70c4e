// SPDX-License-Identifier: Apache-2.0
#include "tandem/memory/memory.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <latch>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "tandem/memory/test_memory.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::memory {
namespace {

using Bytes = std::vector<std::byte>;
using test::BufferRegion;
using test::HostPages;

/// Blocks in read() until released.
class GateRegion : public IoRegion {
 public:
  Outcome read(std::uint64_t, std::span<std::byte> to) override {
    entered.count_down();
    release.wait();
    return {to.size(), Fault::kNone};
  }
  Outcome write(std::uint64_t, std::span<const std::byte> from) override {
    return {from.size(), Fault::kNone};
  }
  std::latch entered{1};
  std::latch release{1};
};

TEST(Memory, AccessCrossesRegionBorders) {
  const HostPages low(1, 1);
  const HostPages high(2, 3);
  const auto io = std::make_shared<BufferRegion>(kPageSize);
  std::ranges::fill(io->data, std::byte{2});
  Memory memory;
  ASSERT_TRUE(memory.add_host_ram({0x10000}, low.bytes()));
  ASSERT_TRUE(memory.add_io({0x11000}, kPageSize, io));
  ASSERT_TRUE(memory.add_host_ram({0x12000}, high.bytes()));

  Bytes got(4 + kPageSize + 4);
  const Outcome read = memory.read({0x10ffc}, got);
  EXPECT_TRUE(read.ok());
  EXPECT_EQ(read.done_bytes, got.size());
  EXPECT_EQ(std::ranges::count(got, std::byte{1}), 4);
  EXPECT_EQ(std::ranges::count(got, std::byte{2}), 4096);
  EXPECT_EQ(std::ranges::count(got, std::byte{3}), 4);
  EXPECT_EQ(io->calls, 1);

  std::ranges::fill(got, std::byte{9});
  EXPECT_TRUE(memory.write({0x10ffc}, got).ok());
  EXPECT_EQ(low.bytes()[kPageSize - 1], std::byte{9});
  EXPECT_EQ(low.bytes()[kPageSize - 5], std::byte{1});
  EXPECT_EQ(io->data[100], std::byte{9});
  EXPECT_EQ(high.bytes()[3], std::byte{9});
  EXPECT_EQ(high.bytes()[4], std::byte{3});
}

TEST(Memory, AccessStopsAtTheFirstByteThatFaults) {
  const HostPages ram(1, 7);
  const HostPages rom(1, 8);
  const auto io = std::make_shared<BufferRegion>(kPageSize, 100);
  Memory memory;
  ASSERT_TRUE(memory.add_host_ram({0x1000}, ram.bytes()));
  ASSERT_TRUE(memory.add_host_ram({0x2000}, rom.bytes(), false));
  ASSERT_TRUE(memory.add_io({0x8000}, kPageSize, io));

  Bytes buffer(kPageSize + 50);
  Outcome outcome = memory.write({0x1000}, buffer);
  EXPECT_EQ(outcome.fault, Fault::kReadOnly);
  EXPECT_EQ(outcome.done_bytes, kPageSize);
  EXPECT_EQ(rom.bytes()[0], std::byte{8});
  outcome = memory.read({0x2000}, buffer);
  EXPECT_EQ(outcome.fault, Fault::kNoRegion);
  EXPECT_EQ(outcome.done_bytes, kPageSize);
  outcome = memory.read({0x8000}, buffer);
  EXPECT_EQ(outcome.fault, Fault::kRefused);
  EXPECT_EQ(outcome.done_bytes, 100u);
  EXPECT_EQ(memory.read({~std::uint64_t{0} - 10}, buffer).fault, Fault::kNoRegion);
}

TEST(Memory, LongHostRamAccessIsCopiedWhole) {
  const HostPages ram(80);
  Memory memory;
  ASSERT_TRUE(memory.add_host_ram({0}, ram.bytes()));
  Bytes from(ram.bytes().size() - 3);
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i * 7 / 5);
  ASSERT_TRUE(memory.write({1}, from).ok());
  Bytes to(from.size());
  ASSERT_TRUE(memory.read({1}, to).ok());
  EXPECT_EQ(from, to);
}

TEST(Memory, BadAndOverlappingRegionsAreRefused) {
  const HostPages ram(4);
  Memory memory;
  const auto expect = [](const Result<RegionId>& got, std::errc error) {
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error(), std::make_error_code(error));
  };
  expect(memory.add_host_ram({0x800}, ram.bytes()), std::errc::invalid_argument);
  expect(memory.add_host_ram({0x1000}, ram.bytes().first(100)), std::errc::invalid_argument);
  expect(memory.add_host_ram({0x1000}, {}), std::errc::invalid_argument);
  expect(memory.add_host_ram({(std::uint64_t{1} << 56) - 0x1000}, ram.bytes()),
         std::errc::invalid_argument);
  expect(memory.add_io({0x1000}, kPageSize, nullptr), std::errc::invalid_argument);
  expect(memory.add_io({~std::uint64_t{0xfff}}, kPageSize, std::make_shared<BufferRegion>(1)),
         std::errc::invalid_argument);
  ASSERT_TRUE(memory.add_host_ram({0x4000}, ram.bytes()));
  for (const std::uint64_t base : {0x1000u, 0x2000u, 0x4000u, 0x5000u, 0x7000u}) {
    expect(memory.add_host_ram({base}, ram.bytes()), std::errc::file_exists);
  }
  EXPECT_TRUE(memory.add_host_ram({0x8000}, ram.bytes()));
  EXPECT_TRUE(memory.add_host_ram({0x0}, ram.bytes()));
  const auto top = memory.add_host_ram({(std::uint64_t{1} << 56) - 0x4000}, ram.bytes());
  EXPECT_TRUE(top);
  EXPECT_TRUE(memory.remove(*top));
  EXPECT_EQ(memory.remove(*top).error(),
            std::make_error_code(std::errc::no_such_file_or_directory));
}

TEST(Memory, AtomicsNeedAlignedHostRam) {
  const HostPages ram(1);
  const HostPages rom(1, 1);
  Memory memory;
  ASSERT_TRUE(memory.add_host_ram({0x1000}, ram.bytes()));
  ASSERT_TRUE(memory.add_host_ram({0x2000}, rom.bytes(), false));
  ASSERT_TRUE(memory.add_io({0x3000}, kPageSize, std::make_shared<BufferRegion>(4096)));

  constexpr auto kRelaxed = std::memory_order_relaxed;
  EXPECT_TRUE(memory.store64({0x1008}, 0x1122334455667788, std::memory_order_release));
  EXPECT_EQ(*memory.load64({0x1008}, std::memory_order_acquire), 0x1122334455667788u);
  EXPECT_EQ(*memory.load32({0x1008}, kRelaxed), 0x55667788u);
  EXPECT_EQ(*memory.load32({0x100c}, kRelaxed), 0x11223344u);
  EXPECT_TRUE(memory.store32({0x100c}, 5, kRelaxed));
  EXPECT_EQ(*memory.load64({0x1008}, kRelaxed), 0x555667788u);
  EXPECT_EQ(*memory.compare_exchange64({0x1008}, 1, 2), 0x555667788u);
  EXPECT_EQ(*memory.compare_exchange64({0x1008}, 0x555667788, 2), 0x555667788u);
  EXPECT_EQ(*memory.load64({0x1008}, kRelaxed), 2u);
  EXPECT_TRUE(memory.set_bits64({0x1008}, 0x43));
  EXPECT_EQ(*memory.load64({0x1008}, kRelaxed), 0x43u);

  EXPECT_EQ(memory.load64({0x1004}, kRelaxed).error(), Fault::kMisaligned);
  EXPECT_EQ(memory.load32({0x1002}, kRelaxed).error(), Fault::kMisaligned);
  EXPECT_EQ(memory.load64({0x3000}, kRelaxed).error(), Fault::kMisaligned);
  EXPECT_EQ(memory.load64({0x5000}, kRelaxed).error(), Fault::kNoRegion);
  EXPECT_EQ(*memory.load32({0x2000}, kRelaxed), 0x01010101u);
  EXPECT_EQ(memory.store64({0x2000}, 1, kRelaxed).error(), Fault::kReadOnly);
  EXPECT_EQ(memory.compare_exchange64({0x2000}, 1, 1).error(), Fault::kReadOnly);
  EXPECT_EQ(memory.set_bits64({0x2000}, 1).error(), Fault::kReadOnly);
}

TEST(Memory, HostPointerNeedsOneWritableRegion) {
  const HostPages ram(2);
  const HostPages next(1);
  Memory memory;
  ASSERT_TRUE(memory.add_host_ram({0x1000}, ram.bytes()));
  ASSERT_TRUE(memory.add_host_ram({0x3000}, next.bytes()));
  ASSERT_TRUE(memory.add_host_ram({0x4000}, next.bytes(), false));
  EXPECT_EQ(memory.host_pointer({0x1010}, 0x1ff0), ram.bytes().data() + 0x10);
  EXPECT_EQ(memory.host_pointer({0x1010}, 0x1ff1), nullptr);
  EXPECT_EQ(memory.host_pointer({0x4000}, 1), nullptr);
  EXPECT_EQ(memory.host_pointer({0x5000}, 1), nullptr);
}

TEST(Memory, VersionChangesWhenARegionGoes) {
  const HostPages ram(1);
  Memory memory;
  const std::uint64_t before = memory.version();
  const auto id = memory.add_host_ram({0x1000}, ram.bytes());
  EXPECT_EQ(memory.version(), before);
  ASSERT_TRUE(memory.remove(*id));
  EXPECT_NE(memory.version(), before);
}

TEST(Memory, ResolveSaysHowFarTheRegionReaches) {
  const HostPages ram(1);
  Memory memory;
  ASSERT_TRUE(memory.add_host_ram({0x1000}, ram.bytes()));
  ASSERT_TRUE(memory.add_io({0x2000}, kPageSize, std::make_shared<BufferRegion>(4096)));
  const std::scoped_lock reader(rcu::rcu_default_domain());
  const Target host = memory.resolve({0x1ff0}, 100, true);
  EXPECT_EQ(host.host, ram.bytes().data() + 0xff0);
  EXPECT_EQ(host.length, 16u);
  EXPECT_FALSE(host.io);
  const Target io = memory.resolve({0x2010}, 100, true);
  EXPECT_EQ(io.host, nullptr);
  EXPECT_TRUE(io.io);
  EXPECT_EQ(io.length, 100u);
  EXPECT_EQ(memory.resolve({0x3000}, 1, false).fault, Fault::kNoRegion);
}

TEST(Memory, RemoveWaitsForAnIoAccessInProgress) {
  const auto gate = std::make_shared<GateRegion>();
  Memory memory;
  const auto id = memory.add_io({0x1000}, kPageSize, gate);
  std::jthread reader([&] {
    std::array<std::byte, 8> buffer{};
    EXPECT_TRUE(memory.read({0x1000}, buffer).ok());
  });
  gate->entered.wait();
  std::atomic<bool> removed{false};
  std::jthread remover([&] {
    EXPECT_TRUE(memory.remove(*id));
    removed = true;
  });
  // The region disappears at once for new accesses, while remove() still waits for the old one.
  std::array<std::byte, 8> buffer{};
  while (memory.write({0x1000}, buffer).ok()) std::this_thread::yield();
  EXPECT_FALSE(removed);
  gate->release.count_down();
  remover.join();
  EXPECT_TRUE(removed);
  reader.join();
  EXPECT_EQ(gate.use_count(), 1);  // the region gave its reference back
}

TEST(Memory, ManyRegionsStayFindableInAnyOrderOfChange) {
  constexpr std::uint64_t kRegions = 20'000;
  const HostPages page(1, 5);
  Memory memory;
  std::vector<std::uint64_t> order(kRegions);
  for (std::uint64_t i = 0; i < kRegions; ++i) order[i] = i;
  std::mt19937_64 random(1);
  std::ranges::shuffle(order, random);
  std::vector<RegionId> ids(kRegions);
  for (const std::uint64_t i : order) {
    ids[i] = *memory.add_host_ram({i * 2 * kPageSize}, page.bytes());
  }
  std::ranges::shuffle(order, random);
  for (std::size_t n = 0; n < 200; ++n) ASSERT_TRUE(memory.remove(ids[order[n]]));
  std::vector<bool> gone(kRegions);
  for (std::size_t n = 0; n < 200; ++n) gone[order[n]] = true;
  for (std::uint64_t i = 0; i < kRegions; ++i) {
    EXPECT_EQ(memory.host_pointer({i * 2 * kPageSize}, kPageSize) != nullptr, !gone[i]);
    EXPECT_EQ(memory.host_pointer({(i * 2 + 1) * kPageSize}, 1), nullptr);
  }
}

TEST(MemoryStress, AccessesNeverTouchAFreedRegion) {
  // Each round frees the host memory as soon as remove() returns: an access that still runs is a
  // use after free for the sanitizers, and reads the poison otherwise.
  Memory memory;
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> hits{0};
  std::vector<std::jthread> readers;
  for (int t = 0; t < 3; ++t) {
    readers.emplace_back([&] {
      Bytes buffer(3 * kPageSize);
      while (!stop) {
        const Outcome outcome = memory.read({0x10000 - kPageSize}, buffer);
        EXPECT_EQ(outcome.done_bytes, 0u);
        const Outcome inside = memory.read({0x10000}, buffer);
        for (std::size_t i = 0; i < inside.done_bytes; ++i) EXPECT_EQ(buffer[i], std::byte{0x5a});
        if (inside.done_bytes != 0) hits.fetch_add(1, std::memory_order_relaxed);
        const auto word = memory.load64({0x10008}, std::memory_order_relaxed);
        if (word) {
          EXPECT_EQ(*word, 0x5a5a5a5a5a5a5a5au);
        }
      }
    });
  }
  for (int round = 0; round < 300 || hits < 100; ++round) {
    auto* const host = static_cast<std::byte*>(std::aligned_alloc(kPageSize, 2 * kPageSize));
    std::memset(host, 0x5a, 2 * kPageSize);
    const auto id = memory.add_host_ram({0x10000}, {host, 2 * kPageSize});
    ASSERT_TRUE(id);
    if (round % 4 == 0) std::this_thread::yield();
    ASSERT_TRUE(memory.remove(*id));
    std::memset(host, 0xa5, 2 * kPageSize);
    std::free(host);  // NOLINT
  }
  stop = true;
}

TEST(MemoryStress, ChangesFromManyThreadsKeepTheViewWhole) {
  Memory memory;
  const HostPages page(1, 1);
  std::vector<std::jthread> threads;
  for (std::uint64_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t i = 0; i < 100; ++i) {
        const PhysAddr at{(i * 3 + t) * kPageSize};
        const auto id = memory.add_host_ram(at, page.bytes());
        ASSERT_TRUE(id);
        std::array<std::byte, 4> word{};
        EXPECT_TRUE(memory.read(at, word).ok());
        if (i % 2 == 0) {
          ASSERT_TRUE(memory.remove(*id));
          EXPECT_EQ(memory.host_pointer(at, 1), nullptr);
        }
      }
    });
  }
  threads.clear();
  std::size_t found = 0;
  for (std::uint64_t i = 0; i < 300; ++i) {
    found += memory.host_pointer({i * kPageSize}, 1) != nullptr ? 1u : 0u;
  }
  EXPECT_EQ(found, 150u);
}

}  // namespace
}  // namespace tandem::memory
