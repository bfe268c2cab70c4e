// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <latch>
#include <optional>
#include <thread>
#include <vector>

#include "tandem/memory/test_memory.hpp"
#include "tandem/pcie/detail/test_bench.hpp"
#include "tandem/pcie/pcie.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::pcie {
namespace {

using namespace std::chrono_literals;
using Bench = detail::TestBench;
using Code = iommu::PageResponse::Code;
using Reason = DmaFault::Reason;
using Permission = Bench::Permission;

constexpr std::uint64_t kPage = kPageSize;
constexpr Pasid kPasid{1};
constexpr Pasid kOther{2};
constexpr std::uint64_t kVa = 0x7f12'3456'7000;

/// Another process's memory.
using Aperture = memory::test::BufferRegion;

class EndpointTest : public testing::Test {
 protected:
  explicit EndpointTest(const iommu::Iommu::Options& options = {.invalidation_timeout = 20s})
      : bench(options) {
    bench.bind(kPasid);
    bench.bind(kOther);
  }
  Endpoint& open(Endpoint::Options options = {}) {
    endpoint_ = bench.endpoint(options);
    return *endpoint_;
  }
  /// Maps `pages` fresh pages in descending physical order; returns their physical addresses.
  std::vector<std::uint64_t> map_scattered(Pasid pasid, std::uint64_t at, std::size_t pages,
                                           Permission permission = Permission::kReadWrite) {
    std::vector<std::uint64_t> physical(pages);
    for (std::size_t i = pages; i-- > 0;) {
      physical[i] = bench.allocate();
      bench.map(pasid, at + i * kPage, physical[i], permission);
    }
    return physical;
  }
  std::shared_ptr<Aperture> add_aperture(std::uint64_t physical, std::size_t size_bytes) {
    auto aperture = std::make_shared<Aperture>(size_bytes);
    EXPECT_TRUE(bench.memory.add_io({physical}, size_bytes, aperture));
    return aperture;
  }
  void serve_with(Code code) {
    bench.on_page_request = [code](const auto&) { return code; };
  }
  static void expect_fault(const DmaResult& result, Reason reason, std::uint64_t address,
                           std::size_t done) {
    ASSERT_TRUE(result.fault);
    EXPECT_EQ(result.fault->reason, reason);
    EXPECT_EQ(result.fault->address.value, address);
    EXPECT_EQ(result.done_bytes, done);
  }

  Bench bench;
  std::unique_ptr<Endpoint> endpoint_;
};

class ImpatientEndpointTest : public EndpointTest {
 protected:
  ImpatientEndpointTest() : EndpointTest({.invalidation_timeout = 5ms}) {}
};

class GuestEndpointTest : public EndpointTest {
 protected:
  using Capabilities = iommu::Capabilities;
  GuestEndpointTest()
      : EndpointTest({.capabilities = iommu::kHostCapabilities | Capabilities::Sv39x4::make(1) |
                                      Capabilities::T2gpa::make(1),
                      .invalidation_timeout = 20s}) {
    bench.enter_guest();
  }
};

std::vector<std::byte> pattern(std::size_t size_bytes) {
  std::vector<std::byte> bytes(size_bytes);
  for (std::size_t i = 0; i < size_bytes; ++i) bytes[i] = static_cast<std::byte>(i * 31 / 7);
  return bytes;
}

// ---- read() and write() -----------------------------------------------------------------------

TEST_F(EndpointTest, ReadsAndWritesAcrossScatteredPages) {
  const auto physical = map_scattered(kPasid, kVa, 40);
  const AddressSpace space = open().space(kPasid);
  const auto from = pattern(38 * kPage + 100);
  const DmaResult wrote = space.write({kVa + 50}, from);
  EXPECT_TRUE(wrote.ok());
  EXPECT_EQ(wrote.done_bytes, from.size());
  EXPECT_EQ(bench.host(physical[0])[50], from[0]);
  EXPECT_EQ(bench.host(physical[1])[0], from[kPage - 50]);
  std::vector<std::byte> to(from.size());
  EXPECT_TRUE(space.read({kVa + 50}, to).ok());
  EXPECT_EQ(from, to);
  EXPECT_TRUE(dma_rw(*endpoint_, kPasid, {kVa + 50}, to, Access::kRead).ok());
  EXPECT_TRUE(space.read({kVa}, {}).ok());
}

TEST_F(EndpointTest, AHitAsksNobody) {
  map_scattered(kPasid, kVa, 1);
  const AddressSpace space = open().space(kPasid);
  std::array<std::byte, 64> buffer{};
  ASSERT_TRUE(space.read({kVa}, buffer).ok());
  const auto asked = bench.iommu.stats().translations;
  const EndpointStats before = Endpoint::thread_stats();
  ASSERT_TRUE(space.read({kVa + 64}, buffer).ok());
  EXPECT_EQ(bench.iommu.stats().translations, asked);
  EXPECT_EQ(Endpoint::thread_stats().atc_hits - before.atc_hits, 1u);
  EXPECT_EQ(endpoint_->stats().translations, 2u);
  EXPECT_EQ(endpoint_->stats().atc_hits, 1u);
}

TEST_F(EndpointTest, ANotPresentPageIsRequestedAndTheAccessGoesOn) {
  const auto physical = bench.allocate(3);
  std::vector<iommu::PageRequestRecord> seen;
  bench.on_page_request = [&](const iommu::PageRequestRecord& record) {
    seen.push_back(record);
    bench.map(kPasid, record.address(), physical + (record.address() - kVa));
    return Code::kSuccess;
  };
  const AddressSpace space = open().space(kPasid);
  const auto from = pattern(2 * kPage);
  EXPECT_TRUE(space.write({kVa + 8}, from).ok());
  EXPECT_TRUE(std::equal(from.begin(), from.end(), bench.host(physical) + 8));
  ASSERT_EQ(seen.size(), 3u);
  EXPECT_EQ(seen[0].address(), kVa);
  EXPECT_EQ(seen[0].process_id(), kPasid.value);
  EXPECT_TRUE(seen[0].write());
  EXPECT_FALSE(seen[0].read());
  EXPECT_TRUE(seen[0].last());
  EXPECT_EQ(endpoint_->stats().page_requests, 3u);
}

TEST_F(EndpointTest, AWriteToAReadOnlyPageIsRequestedForWriting) {
  const auto physical = map_scattered(kPasid, kVa, 1, Permission::kRead);
  int requests = 0;
  bench.on_page_request = [&](const iommu::PageRequestRecord& record) {
    ++requests;
    EXPECT_TRUE(record.write());
    bench.map(kPasid, record.address(), physical[0]);
    return Code::kSuccess;
  };
  const AddressSpace space = open().space(kPasid);
  std::array<std::byte, 8> word{std::byte{7}};
  EXPECT_TRUE(space.read({kVa}, word).ok());
  EXPECT_EQ(requests, 0);
  word[0] = std::byte{9};
  EXPECT_TRUE(space.write({kVa}, word).ok());
  EXPECT_EQ(requests, 1);
  EXPECT_EQ(bench.host(physical[0])[0], std::byte{9});
}

TEST_F(EndpointTest, AReadOnlyPageRefusesTheWriteAndStaysAsItWas) {
  const auto physical = map_scattered(kPasid, kVa, 1, Permission::kRead);
  const AddressSpace space = open().space(kPasid);
  const std::array<std::byte, 8> word{std::byte{7}};
  expect_fault(space.write({kVa + 16}, word), Reason::kNotPermitted, kVa + 16, 0);
  EXPECT_EQ(bench.host(physical[0])[16], std::byte{0});
}

TEST_F(EndpointTest, AHalfValidBufferFaultsAtTheFirstBadByteAfterTheGoodOnes) {
  const auto physical = map_scattered(kPasid, kVa, 2);
  std::memset(bench.host(physical[1]), 5, kPage);
  const AddressSpace space = open().space(kPasid);
  std::vector<std::byte> to(4 * kPage);
  for (int i = 0; i < 2; ++i) {  // cold, then from the cache
    std::ranges::fill(to, std::byte{1});
    expect_fault(space.read({kVa + 100}, to), Reason::kNotPermitted, kVa + 2 * kPage,
                 2 * kPage - 100);
    EXPECT_EQ(to[2 * kPage - 101], std::byte{5});
    EXPECT_EQ(to[2 * kPage - 100], std::byte{1});
  }
}

TEST_F(EndpointTest, ResponsesSayWhyAnAccessFails) {
  const AddressSpace space = open().space(kPasid);
  std::array<std::byte, 8> word{};
  serve_with(Code::kInvalidRequest);
  expect_fault(space.read({kVa + 4}, word), Reason::kNotPermitted, kVa + 4, 0);
  serve_with(Code::kResponseFailure);
  expect_fault(space.read({kVa + 4}, word), Reason::kNoService, kVa + 4, 0);
}

TEST_F(EndpointTest, AResponseThatNeverComesTimesOut) {
  bench.answers = false;
  const AddressSpace space = open({.page_request_timeout = 5ms}).space(kPasid);
  std::array<std::byte, 8> word{};
  expect_fault(space.read({kVa}, word), Reason::kNoService, kVa, 0);
}

TEST_F(EndpointTest, WithoutPriAMissingPageIsNoService) {
  map_scattered(kPasid, kVa, 1);
  const AddressSpace space = open({.pri = false}).space(kPasid);
  std::vector<std::byte> to(2 * kPage);
  expect_fault(space.read({kVa}, to), Reason::kNoService, kVa + kPage, kPage);
}

TEST_F(EndpointTest, ServiceThatNeverHelpsEndsTheAccess) {
  int requests = 0;
  bench.on_page_request = [&](const auto&) {
    ++requests;
    return Code::kSuccess;  // a process that unmaps again at once
  };
  const AddressSpace space = open().space(kPasid);
  std::array<std::byte, 8> word{};
  expect_fault(space.read({kVa}, word), Reason::kNotPermitted, kVa, 0);
  EXPECT_LE(requests, 8);
}

TEST_F(EndpointTest, RangesThatWrapAndNonCanonicalAddressesFault) {
  const AddressSpace space = open().space(kPasid);
  std::vector<std::byte> to(kPage + 1);
  expect_fault(space.read({~std::uint64_t{0} - 0xfff}, to), Reason::kWraps,
               ~std::uint64_t{0} - 0xfff, 0);
  EXPECT_EQ(space.map({~std::uint64_t{0}}, 2, Access::kRead).error().reason, Reason::kWraps);
  expect_fault(space.read({std::uint64_t{1} << 55}, to), Reason::kNotPermitted,
               std::uint64_t{1} << 55, 0);
}

TEST_F(EndpointTest, ADeviceTheIommuDoesNotKnowIsBlocked) {
  auto made = Endpoint::create(bench.iommu, DeviceId{9}, {});
  ASSERT_TRUE(made);
  std::array<std::byte, 8> word{};
  expect_fault((*made)->space(kPasid).read({kVa}, word), Reason::kBlocked, kVa, 0);
}

TEST_F(EndpointTest, CreateRefusesATakenIdAndPriWithoutAts) {
  open();
  EXPECT_EQ(Endpoint::create(bench.iommu, Bench::kDevice, {}).error(),
            std::make_error_code(std::errc::file_exists));
  EXPECT_EQ(Endpoint::create(bench.iommu, DeviceId{9}, {.ats = false}).error(),
            std::make_error_code(std::errc::invalid_argument));
}

TEST_F(EndpointTest, PasidZeroAndNoPasidAreDifferentSpaces) {
  bench.bind(Pasid{0});
  const std::uint64_t direct = bench.allocate();
  const std::uint64_t mapped = bench.allocate();
  bench.host(direct)[0] = std::byte{1};
  bench.host(mapped)[0] = std::byte{2};
  bench.map(Pasid{0}, direct, mapped);
  Endpoint& device = open();
  std::array<std::byte, 1> byte{};
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(device.space(std::nullopt).read({direct}, byte).ok());  // passes through
    EXPECT_EQ(byte[0], std::byte{1});
    ASSERT_TRUE(device.space(Pasid{0}).read({direct}, byte).ok());
    EXPECT_EQ(byte[0], std::byte{2});
  }
  expect_fault(device.space(kPasid).read({direct}, byte), Reason::kNotPermitted, direct, 0);
}

TEST_F(EndpointTest, SuperpagesAreCachedWhole) {
  // The arena is 2 MiB aligned in physical memory; its second superpage is free for data.
  const std::uint64_t physical = Bench::kArena + (4 << 20);
  const std::uint64_t at = kVa & ~((std::uint64_t{1} << 21) - 1);
  bench.map(kPasid, at, physical, Permission::kReadWrite, 1);
  const AddressSpace space = open().space(kPasid);
  std::array<std::byte, 1> byte{std::byte{3}};
  ASSERT_TRUE(space.write({at + 0x12'3456}, byte).ok());
  EXPECT_EQ(bench.host(physical)[0x12'3456], std::byte{3});
  ASSERT_TRUE(space.write({at}, byte).ok());
  ASSERT_TRUE(space.write({at + (1 << 21) - 1}, byte).ok());
  EXPECT_EQ(endpoint_->stats().atc_hits, 2u);
  EXPECT_TRUE(space.map({at}, 1 << 21, Access::kWrite));
  EXPECT_TRUE(bench.unmap(kPasid, at, 1));
  EXPECT_FALSE(space.write({at + 0x12'3456}, byte).ok());
}

TEST_F(EndpointTest, ASuperpageThatIsHostRamOnlyInPartIsUsedInPart) {
  const std::uint64_t physical = 0x4000'0000;
  auto ram = *Mapping::anonymous(4 * kPage);
  ASSERT_TRUE(bench.memory.add_host_ram({physical}, ram.bytes()));
  const auto aperture = add_aperture(physical + 4 * kPage, 4 * kPage);
  const std::uint64_t at = std::uint64_t{1} << 30;
  bench.map(kPasid, at, physical, Permission::kReadWrite, 1);
  serve_with(Code::kSuccess);
  const AddressSpace space = open().space(kPasid);
  const auto from = pattern(16 * kPage);
  expect_fault(space.write({at}, from), Reason::kMemory, at + 8 * kPage, 8 * kPage);
  EXPECT_TRUE(std::equal(ram.bytes().begin(), ram.bytes().end(), from.begin()));
  EXPECT_TRUE(std::equal(aperture->data.begin(), aperture->data.end(), from.begin() + 4 * kPage));
}

// ---- I/O regions ------------------------------------------------------------------------------

TEST_F(EndpointTest, AContiguousApertureBufferIsOneCall) {
  const std::uint64_t physical = 0x4000'0000;
  const auto aperture = add_aperture(physical, 1 << 20);
  for (std::uint64_t i = 0; i < 17; ++i) {
    bench.map(kPasid, kVa + i * kPage, physical + i * kPage);
  }
  const AddressSpace space = open().space(kPasid);
  const auto from = pattern(64 * 1024);
  EXPECT_TRUE(space.write({kVa + 17}, from).ok());
  EXPECT_EQ(aperture->calls, 1) << "cold";
  std::vector<std::byte> to(from.size());
  EXPECT_TRUE(space.read({kVa + 17}, to).ok());
  EXPECT_EQ(aperture->calls, 2) << "cached";
  EXPECT_EQ(to, from);
}

TEST_F(EndpointTest, AnAperturesRefusalIsReportedWithItsAddress) {
  const std::uint64_t physical = 0x4000'0000;
  const auto aperture = add_aperture(physical, 4 * kPage);
  for (std::uint64_t i = 0; i < 4; ++i) bench.map(kPasid, kVa + i * kPage, physical + i * kPage);
  aperture->limit = kPage + 123;
  const AddressSpace space = open().space(kPasid);
  std::vector<std::byte> to(3 * kPage);
  serve_with(Code::kSuccess);  // claims that the page is fine
  expect_fault(space.read({kVa}, to), Reason::kMemory, kVa + kPage + 123, kPage + 123);
  serve_with(Code::kInvalidRequest);  // unmapped meanwhile
  expect_fault(space.read({kVa}, to), Reason::kNotPermitted, kVa + kPage + 123, kPage + 123);
}

TEST_F(EndpointTest, AnAddressThatBecameReservedMemoryIsFoundThere) {
  const std::uint64_t physical = 0x4000'0000;
  const auto aperture = add_aperture(physical, kPage);
  aperture->limit = 0;
  bench.map(kPasid, kVa, physical);
  const std::uint64_t reserved = bench.allocate();
  bench.host(reserved)[5] = std::byte{42};
  bench.on_page_request = [&](const auto&) {
    bench.map(kPasid, kVa, reserved);
    EXPECT_TRUE(bench.invalidate(kPasid, kVa, kPage));
    return Code::kSuccess;
  };
  std::array<std::byte, 1> byte{};
  EXPECT_TRUE(open().space(kPasid).read({kVa + 5}, byte).ok());
  EXPECT_EQ(byte[0], std::byte{42});
}

// ---- invalidation -----------------------------------------------------------------------------

// Catches the planted fault pcie-skip-invalidation.
TEST_F(EndpointTest, AfterAnInvalidationTheOldTranslationIsGone) {
  map_scattered(kPasid, kVa, 2);
  const auto others = map_scattered(kOther, kVa, 1);
  Endpoint& device = open();
  std::vector<std::byte> to(2 * kPage);
  ASSERT_TRUE(device.space(kPasid).read({kVa}, to).ok());
  ASSERT_TRUE(device.space(kOther).read({kVa}, std::span(to).first(8)).ok());
  EXPECT_TRUE(bench.unmap(kPasid, kVa + kPage));
  expect_fault(device.space(kPasid).read({kVa}, to), Reason::kNotPermitted, kVa + kPage, kPage);
  const auto asked = bench.iommu.stats().translations;
  EXPECT_TRUE(device.space(kOther).read({kVa}, std::span(to).first(8)).ok());
  EXPECT_EQ(bench.iommu.stats().translations, asked) << "another PASID keeps its translations";
  EXPECT_EQ(device.stats().invalidations, 1u);
}

TEST_F(EndpointTest, AWholeSpaceOrAllSpacesCanBeInvalidated) {
  map_scattered(kPasid, kVa, 1);
  map_scattered(kOther, kVa, 1);
  Endpoint& device = open();
  std::array<std::byte, 8> word{};
  const auto translations_of_a_read = [&](Pasid pasid) {
    const auto before = bench.iommu.stats().translations;
    EXPECT_TRUE(device.space(pasid).read({kVa}, word).ok());
    return bench.iommu.stats().translations - before;
  };
  translations_of_a_read(kPasid);
  translations_of_a_read(kOther);
  EXPECT_TRUE(bench.invalidate(kPasid, 0, 0));
  EXPECT_EQ(translations_of_a_read(kPasid), 1u);
  EXPECT_EQ(translations_of_a_read(kOther), 0u);
  EXPECT_TRUE(bench.invalidate(kPasid, 0, 0, true));
  EXPECT_EQ(translations_of_a_read(kPasid), 1u);
  EXPECT_EQ(translations_of_a_read(kOther), 1u);
}

TEST_F(EndpointTest, RemovedMemoryIsNotReachedThroughACachedHostAddress) {
  const std::uint64_t physical = 0x4000'0000;
  auto first = *Mapping::anonymous(kPage);
  auto second = *Mapping::anonymous(kPage);
  first.data()[0] = std::byte{1};
  second.data()[0] = std::byte{2};
  const auto id = bench.memory.add_host_ram({physical}, first.bytes());
  bench.map(kPasid, kVa, physical);
  const AddressSpace space = open().space(kPasid);
  std::array<std::byte, 1> byte{};
  ASSERT_TRUE(space.read({kVa}, byte).ok());
  EXPECT_EQ(byte[0], std::byte{1});
  ASSERT_TRUE(bench.memory.remove(*id));
  ASSERT_TRUE(bench.memory.add_host_ram({physical}, second.bytes()));
  ASSERT_TRUE(space.read({kVa}, byte).ok());
  EXPECT_EQ(byte[0], std::byte{2});
}

TEST_F(EndpointTest, PageRequestServiceMayInvalidateOnTheSameThread) {
  map_scattered(kPasid, kVa, 1);
  const std::uint64_t physical = bench.allocate();
  bench.on_page_request = [&](const iommu::PageRequestRecord& record) {
    EXPECT_TRUE(bench.unmap(kPasid, kVa));  // makes room first
    bench.map(kPasid, record.address(), physical);
    return Code::kSuccess;
  };
  const AddressSpace space = open().space(kPasid);
  std::array<std::byte, 8> word{};
  ASSERT_TRUE(space.read({kVa}, word).ok());
  EXPECT_TRUE(space.read({kVa + kPage}, word).ok());
}

// ---- map() ------------------------------------------------------------------------------------

TEST_F(EndpointTest, AWindowIsTheMemoryItself) {
  const std::uint64_t physical = bench.allocate(4);
  bench.on_page_request = [&](const iommu::PageRequestRecord& record) {
    bench.map(kPasid, record.address(), physical + (record.address() - kVa));
    return Code::kSuccess;
  };
  const AddressSpace space = open().space(kPasid);
  auto window = space.map({kVa + 10}, 3 * kPage, Access::kWrite);
  ASSERT_TRUE(window);
  EXPECT_EQ(window->bytes().data(), bench.host(physical) + 10);
  EXPECT_EQ(window->bytes().size(), 3 * kPage);
  Window moved = std::move(*window);
  EXPECT_EQ(moved.bytes().size(), 3 * kPage);
}

TEST_F(EndpointTest, WhatIsNotOneRunOfHostRamIsNotMappable) {
  map_scattered(kPasid, kVa, 2);
  add_aperture(0x4000'0000, kPage);
  bench.map(kPasid, kVa + 4 * kPage, 0x4000'0000);
  map_scattered(kPasid, kVa + 6 * kPage, 1, Permission::kRead);
  const AddressSpace space = open().space(kPasid);
  const auto reason = [&](std::uint64_t at, std::size_t length, Access access) {
    const auto window = space.map({at}, length, access);
    return window ? std::nullopt : std::optional(window.error().reason);
  };
  EXPECT_EQ(reason(kVa, kPage, Access::kWrite), std::nullopt);
  EXPECT_EQ(reason(kVa, 2 * kPage, Access::kWrite), Reason::kNotMappable);
  EXPECT_EQ(reason(kVa + 4 * kPage, 8, Access::kRead), Reason::kNotMappable);
  EXPECT_EQ(reason(kVa + 6 * kPage, 8, Access::kRead), std::nullopt);
  EXPECT_EQ(reason(kVa + 6 * kPage, 8, Access::kWrite), Reason::kNotPermitted);
  EXPECT_EQ(reason(kVa + 9 * kPage, 8, Access::kRead), Reason::kNotPermitted);
  EXPECT_EQ(reason(kVa, 0, Access::kRead), Reason::kNotMappable);
  EXPECT_EQ(reason(kVa, 8, Access::kExecute), Reason::kDisabled);
}

TEST_F(EndpointTest, UnderAWindowNoPageRequestIsMade) {
  map_scattered(kPasid, kVa, 2);
  add_aperture(0x4000'0000, kPage);
  bench.map(kPasid, kVa + 4 * kPage, 0x4000'0000);
  bench.on_page_request = [](const auto&) {
    ADD_FAILURE() << "page request under a window";
    return Code::kInvalidRequest;
  };
  const AddressSpace space = open().space(kPasid);
  std::array<std::byte, 8> word{};
  {
    const auto window = space.map({kVa}, kPage, Access::kRead);
    ASSERT_TRUE(window);
    expect_fault(space.read({kVa + 8 * kPage}, word), Reason::kNotMappable, kVa + 8 * kPage, 0);
    expect_fault(space.read({kVa + 4 * kPage}, word), Reason::kNotMappable, kVa + 4 * kPage, 0);
    EXPECT_FALSE(space.map({kVa + 8 * kPage}, 8, Access::kRead));
    EXPECT_TRUE(space.read({kVa + kPage}, word).ok());
  }
  EXPECT_TRUE(space.read({kVa + 4 * kPage}, word).ok());
}

TEST_F(EndpointTest, MoreWindowsThanSlotsAreNotMappable) {
  map_scattered(kPasid, kVa, 1);
  const AddressSpace space = open().space(kPasid);
  std::vector<Window> windows;
  for (;;) {
    auto window = space.map({kVa}, 8, Access::kRead);
    if (!window) {
      EXPECT_EQ(window.error().reason, Reason::kNotMappable);
      break;
    }
    windows.push_back(std::move(*window));
    ASSERT_LE(windows.size(), 1000u);
  }
  EXPECT_GE(windows.size(), 32u);
  windows.clear();
  EXPECT_TRUE(space.map({kVa}, 8, Access::kRead));
}

using EndpointDeathTest = EndpointTest;

TEST_F(EndpointDeathTest, ItMustNotEndBeforeItsWindows) {
  map_scattered(kPasid, kVa, 1);
  Endpoint& device = open();
  const auto window = device.space(kPasid).map({kVa}, kPage, Access::kRead);
  ASSERT_TRUE(window);
  EXPECT_DEATH(endpoint_.reset(), "slots.idle");
}

// Catches the planted faults pcie-skip-slot-wait and pcie-skip-invalidation.
TEST_F(EndpointTest, AnInvalidationWaitsForTheWindowsOfItsPasidOnly) {
  map_scattered(kPasid, kVa, 1);
  map_scattered(kOther, kVa, 1);
  Endpoint& device = open();
  auto window = std::make_optional(*device.space(kPasid).map({kVa}, kPage, Access::kRead));
  EXPECT_TRUE(bench.unmap(kOther, kVa));  // at once

  std::atomic<bool> revoked{false};
  std::jthread driver([&] {
    EXPECT_TRUE(bench.unmap(kPasid, kVa));
    revoked = true;
  });
  // The entry is gone for others while the invalidation still waits for us.
  const auto mappable = [&] { return bool{device.space(kPasid).map({kVa}, 8, Access::kRead)}; };
  while (!revoked && mappable()) std::this_thread::yield();
  EXPECT_FALSE(revoked);
  EXPECT_FALSE(mappable());
  const auto patience = std::chrono::steady_clock::now() + 20ms;
  while (!revoked && std::chrono::steady_clock::now() < patience) std::this_thread::yield();
  EXPECT_FALSE(revoked);
  window.reset();
  driver.join();
  EXPECT_TRUE(revoked);
}

// Catches the planted fault pcie-skip-slot-wait.
TEST_F(ImpatientEndpointTest, AWindowHeldTooLongMakesTheInvalidationTimeOut) {
  map_scattered(kPasid, kVa, 1);
  Endpoint& device = open();
  auto window = std::make_optional(*device.space(kPasid).map({kVa}, kPage, Access::kRead));
  EXPECT_FALSE(bench.unmap(kPasid, kVa));
  window.reset();
  EXPECT_TRUE(bench.invalidate(kPasid, kVa, kPage));
}

// Catches the planted fault pcie-skip-slot-wait.
TEST_F(EndpointTest, AnInvalidationThatWaitsHoldsUpNobodyElse) {
  map_scattered(kPasid, kVa, 1);
  const std::uint64_t other = bench.allocate();
  bench.on_page_request = [&](const iommu::PageRequestRecord& record) {
    bench.map(kOther, record.address(), other);
    return Code::kSuccess;
  };
  Endpoint& device = open();
  std::vector<Message> completions;
  device.set_tap([&](const Message& message) {
    if (message.kind == Message::Kind::kInvalidationCompletion) completions.push_back(message);
  });
  auto window = std::make_optional(*device.space(kPasid).map({kVa}, kPage, Access::kRead));
  const auto invalidate = [](Pasid pasid) {
    return iommu::ats_inval(Bench::kDevice.value, pasid.value, kVa, kPage);
  };
  ASSERT_TRUE(bench.command({invalidate(kPasid)}));
  ASSERT_TRUE(bench.command({invalidate(kOther)}));
  ASSERT_EQ(completions.size(), 1U);
  EXPECT_EQ(completions[0].pasid, kOther) << "the window is not of its PASID";
  std::jthread another([&] {
    std::array<std::byte, 8> word{};
    EXPECT_TRUE(device.space(kOther).read({kVa}, word).ok()) << "the response passes";
  });
  another.join();
  EXPECT_EQ(completions.size(), 1U);
  window.reset();
  ASSERT_EQ(completions.size(), 2U);
  EXPECT_EQ(completions[1].pasid, kPasid);
  EXPECT_TRUE(bench.command({iommu::iofence_c({})}));
  device.set_tap({});
}

TEST_F(EndpointTest, AWindowCompletesEveryInvalidationThatWaitsForIt) {
  map_scattered(kPasid, kVa, 1);
  map_scattered(kOther, kVa, 1);
  Endpoint& device = open();
  std::vector<Window> windows;
  windows.push_back(std::move(*device.space(kPasid).map({kVa}, kPage, Access::kRead)));
  windows.push_back(std::move(*device.space(kOther).map({kVa}, kPage, Access::kRead)));
  const std::uint32_t id = Bench::kDevice.value;
  ASSERT_TRUE(bench.command({iommu::ats_inval(id, kPasid.value, kVa, kPage),
                             iommu::ats_inval(id, kPasid.value, 0, 0),
                             iommu::ats_inval(id, kPasid.value, 0, 0, /*global=*/true)}));
  std::atomic<int> completions{0};
  device.set_tap([&](const Message& message) {
    if (message.kind == Message::Kind::kInvalidationCompletion) ++completions;
  });
  std::jthread driver([&] { EXPECT_TRUE(bench.command({iommu::iofence_c({})})); });
  windows.erase(windows.begin());
  EXPECT_EQ(completions, 2);
  windows.clear();  // the last request is for all PASIDs
  EXPECT_EQ(completions, 3);
}

// ---- without ATS ------------------------------------------------------------------------------

TEST_F(EndpointTest, WithoutAtsEveryAccessIsTranslated) {
  const auto physical = map_scattered(kPasid, kVa, 2);
  add_aperture(0x4000'0000, kPage);
  const AddressSpace space = open({.ats = false, .pri = false}).space(kPasid);
  const auto from = pattern(2 * kPage - 10);
  ASSERT_TRUE(space.write({kVa + 10}, from).ok());
  EXPECT_EQ(bench.host(physical[1])[0], from[kPage - 10]);
  std::vector<std::byte> to(from.size());
  ASSERT_TRUE(space.read({kVa + 10}, to).ok());
  EXPECT_EQ(from, to);
  to.resize(4 * kPage);
  expect_fault(space.read({kVa}, to), Reason::kNotPermitted, kVa + 2 * kPage, 2 * kPage);
  const auto unknown = Endpoint::create(bench.iommu, DeviceId{9}, {.ats = false, .pri = false});
  expect_fault((*unknown)->space(kPasid).read({kVa}, to), Reason::kBlocked, kVa, 0);
  EXPECT_EQ(space.map({kVa}, 8, Access::kRead).error().reason, Reason::kNotMappable);
}

// ---- in a guest, with T2GPA ---------------------------------------------------------------------

// [iommu §3.1.3.1]
TEST_F(GuestEndpointTest, TranslatedRequestsCarryGuestAddresses) {
  const std::uint64_t physical[] = {bench.allocate(), bench.allocate(), bench.allocate()};
  for (std::size_t i = 0; i < 3; ++i) {
    bench.map(kPasid, kVa + i * kPage, Bench::kGuestArena + (physical[i] - Bench::kArena));
  }
  const AddressSpace space = open().space(kPasid);
  const auto from = pattern(2 * kPage);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(space.write({kVa + 100}, from).ok());
    EXPECT_EQ(bench.host(physical[0])[100], from[0]);
    EXPECT_EQ(bench.host(physical[2])[99], from[2 * kPage - 1]);
    std::vector<std::byte> to(from.size());
    ASSERT_TRUE(space.read({kVa + 100}, to).ok());
    EXPECT_EQ(from, to);
  }
  EXPECT_FALSE(space.map({kVa}, 8, Access::kRead)) << "each access asks the IOMMU";
  // The hypervisor takes the memory away: it tells the IOMMU, and need not know of the device.
  bench.set_guest_memory(false);
  std::atomic<int> told{0};
  bench.iommu.mmio_write(iommu::reg::kFqcsr,
                         iommu::Fqcsr::Fqen::make(1) | iommu::Fqcsr::Fie::make(1), 4);
  bench.iommu.on_wire([&](unsigned, bool) {
    EXPECT_FALSE(rcu::rcu_default_domain().in_section())
        << "it may have to wait for a grace period";
    ++told;
  });
  std::array<std::byte, 8> word{};
  EXPECT_EQ(space.read({kVa}, word).fault->reason, Reason::kNotPermitted);
  EXPECT_NE(told, 0);
  bench.iommu.on_wire({});
  bench.set_guest_memory(true);
  EXPECT_TRUE(space.read({kVa}, word).ok());
}

// ---- messages ---------------------------------------------------------------------------------

TEST_F(EndpointTest, TheTapSeesThePathOfAFault) {
  const std::uint64_t physical = bench.allocate();
  bench.on_page_request = [&](const iommu::PageRequestRecord& record) {
    bench.map(kPasid, record.address(), physical);
    return Code::kSuccess;
  };
  Endpoint& device = open();
  std::vector<Message> seen;
  device.set_tap([&](const Message& message) { seen.push_back(message); });
  std::array<std::byte, 8> word{};
  ASSERT_TRUE(device.space(kPasid).read({kVa + 8}, word).ok());
  ASSERT_TRUE(bench.unmap(kPasid, kVa));
  using Kind = Message::Kind;
  std::vector<Kind> kinds;
  for (const Message& message : seen) {
    kinds.push_back(message.kind);
    EXPECT_EQ(message.pasid, kPasid);
    EXPECT_EQ(message.device, Bench::kDevice);
    EXPECT_EQ(message.address.value, message.kind == Kind::kMemoryRead ? kVa + 8 : kVa);
  }
  EXPECT_EQ(kinds, (std::vector{Kind::kTranslationRequest, Kind::kTranslationCompletion,
                                Kind::kPageRequest, Kind::kPageResponse, Kind::kTranslationRequest,
                                Kind::kTranslationCompletion, Kind::kMemoryRead,
                                Kind::kInvalidationRequest, Kind::kInvalidationCompletion}));
  EXPECT_EQ(seen[5].physical_address, physical);
  EXPECT_TRUE(seen[5].readable);
  device.set_tap({});
  (void)device.space(kPasid).read({kVa}, word);
  EXPECT_EQ(seen.size(), kinds.size());
}

// ---- stress -----------------------------------------------------------------------------------

// Catches the planted fault pcie-skip-invalidation.
TEST_F(EndpointTest, StressRevokedMemoryIsNeverTouched) {
  // Each round maps a page, revokes it, and poisons it as soon as the fence says so, while devices
  // read it by copying, in place, and by copying inside the space.
  constexpr std::uint64_t kPhysical = 0x4000'0000;
  constexpr std::byte kGood{0x5a};
  // The page is always behind a region that stays, so that only the invalidation protects it: the
  // mapping alternates between two pages of it, and the one not mapped is poisoned.
  auto ram = *Mapping::anonymous(2 * kPage);
  ASSERT_TRUE(bench.memory.add_host_ram({kPhysical}, ram.bytes()));
  Endpoint& device = open();
  std::atomic<bool> stop{false};
  std::atomic<int> copies{0}, windows{0}, moves{0};
  constexpr std::uint64_t kCopy = kVa + 64 * kPage;
  const std::uint64_t copied_to = bench.allocate();
  bench.map(kPasid, kCopy, copied_to);
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const AddressSpace space = device.space(kPasid);
      std::vector<std::byte> buffer(kPage);
      const auto all_good = [&](std::span<const std::byte> bytes) {
        return std::ranges::all_of(bytes, [&](std::byte byte) { return byte == kGood; });
      };
      while (!stop) {
        if (t == 0) {
          const auto window = space.map({kVa}, kPage, Access::kRead);
          if (!window) continue;
          EXPECT_TRUE(all_good(window->bytes()));
          windows.fetch_add(1, std::memory_order_relaxed);
        } else if (t == 1) {
          // What was copied is looked at afterwards: it has to be from before the revocation.
          EXPECT_TRUE(space.write({kCopy}, std::span<const std::byte>(&kGood, 1)).ok());
          (void)space.read({kVa}, std::span(buffer).first(1));
          if (!space.copy_cached({kVa}, {kCopy}, kPage)) continue;
          EXPECT_TRUE(all_good({bench.host(copied_to), kPage}));
          moves.fetch_add(1, std::memory_order_relaxed);
        } else {
          const DmaResult result = space.read({kVa + 8}, std::span(buffer).first(2048));
          EXPECT_TRUE(all_good(std::span(buffer).first(result.done_bytes)));
          if (result.ok()) copies.fetch_add(1, std::memory_order_relaxed);
        }
      }
    });
  }
  for (unsigned round = 0; round < 400 || copies < 100 || windows < 100 || moves < 100; ++round) {
    const std::uint64_t offset = (round % 2) * kPage;
    std::memset(ram.data() + offset, 0x5a, kPage);
    bench.map(kPasid, kVa, kPhysical + offset);
    if (round % 2 == 0) std::this_thread::yield();
    EXPECT_TRUE(bench.unmap(kPasid, kVa));
    std::memset(ram.data() + offset, 0xa5, kPage);
    if (HasFailure()) break;
  }
  stop = true;
}

TEST_F(EndpointTest, StressFreedMemoryIsNeverTouched) {
  constexpr std::uint64_t kPhysical = 0x4000'0000;
  serve_with(Code::kInvalidRequest);
  Endpoint& device = open();
  std::atomic<bool> stop{false};
  std::atomic<int> copies{0};
  std::vector<std::jthread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      const AddressSpace space = device.space(kPasid);
      std::vector<std::byte> buffer(kPage);
      while (!stop) {
        if (space.read({kVa}, buffer).ok()) copies.fetch_add(1, std::memory_order_relaxed);
        (void)space.map({kVa}, kPage, Access::kRead);
      }
    });
  }
  for (int round = 0; round < 200 || copies < 100; ++round) {
    auto* const host = static_cast<std::byte*>(std::aligned_alloc(kPage, kPage));
    std::memset(host, 0x5a, kPage);
    const auto id = bench.memory.add_host_ram({kPhysical}, {host, kPage});
    EXPECT_TRUE(id);
    if (!id) break;
    bench.map(kPasid, kVa, kPhysical);
    if (round % 2 == 0) std::this_thread::yield();
    EXPECT_TRUE(bench.unmap(kPasid, kVa));
    EXPECT_TRUE(bench.memory.remove(*id));
    std::free(host);  // NOLINT
  }
  stop = true;
}

}  // namespace
}  // namespace tandem::pcie
