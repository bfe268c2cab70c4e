// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/reserved_memory.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "tandem/uacce/detail/host.hpp"
#include "tandem/uacce/detail/page_table.hpp"
#include "tandem/uacce/detail/table_memory.hpp"
#include "tandem/uacce/detail/test_process.hpp"

namespace tandem::uacce::detail {
namespace {

using pcie::Iova;

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kAt = 0x200000000;

TEST(PhysicalSpace, HandsOutAlignedDisjointRangesAndTakesThemBack) {
  PhysicalSpace space;
  const auto first = space.allocate(5 * kPage, 2 * kMiB);
  const auto second = space.allocate(kPage, 2 * kMiB);
  const auto third = space.allocate(3 * kMiB, 1024 * kMiB);
  ASSERT_TRUE(first && second && third);
  EXPECT_EQ(second->value % (2 * kMiB), 0u);
  EXPECT_EQ(third->value % (1024 * kMiB), 0u);
  EXPECT_GE(second->value, first->value + 5 * kPage);
  space.free(*second, kPage);
  space.free(*first, 5 * kPage);
  space.free(*third, 3 * kMiB);
  const std::uint64_t everything = kReservedEnd.value - kReservedBase.value;
  const auto all = space.allocate(everything, kPage);
  ASSERT_TRUE(all) << "free ranges had grown together";
  EXPECT_FALSE(space.allocate(kPage, kPage));
  space.free(*all, everything);
}

TEST(PhysicalSpace, DoesNotHandOutARangeAgainAtOnce) {
  PhysicalSpace space;
  const auto first = space.allocate(kPage, kPage);
  space.free(*first, kPage);
  EXPECT_NE(space.allocate(kPage, kPage)->value, first->value);
}

class Reserved : public testing::Test {
 protected:
  void SetUp() override {
    auto host = Host::create();
    ASSERT_TRUE(host);
    host_ = std::move(*host);
    auto endpoint = host_->add_endpoint();
    ASSERT_TRUE(endpoint);
    endpoint_ = std::move(*endpoint);
    auto mm = host_->bind({});
    ASSERT_TRUE(mm);
    mm_ = std::move(*mm);
  }
  void TearDown() override { host_->remove_endpoint(*endpoint_); }

  std::shared_ptr<ReservedMemory> reserve(std::uint64_t size_bytes) {
    auto memory = mm_->reserve(size_bytes);
    EXPECT_TRUE(memory);
    return *memory;
  }
  /// The client's side of `memory`.
  static Mapping client_mapping(const ReservedMemory& memory) {
    auto mapping = Mapping::shared(Mm::descriptor(memory).get(), Mm::size(memory));
    EXPECT_TRUE(mapping);
    return std::move(*mapping);
  }
  pcie::DmaResult read(std::uint64_t at, std::vector<std::byte>& to) {
    return endpoint_->space(mm_->pasid()).read(Iova{at}, to);
  }
  bool readable(std::uint64_t at) {
    std::vector<std::byte> bytes(8);
    return read(at, bytes).ok();
  }

  std::unique_ptr<Host> host_;
  std::unique_ptr<pcie::Endpoint> endpoint_;
  std::shared_ptr<Mm> mm_;
};

TEST_F(Reserved, IsOneMemoryOnBothSides) {
  const auto memory = reserve(3 * kPage + 1);
  EXPECT_EQ(Mm::size(*memory), 4 * kPage);
  const Mapping mine = client_mapping(*memory);
  ASSERT_TRUE(mm_->attach(memory, kAt));
  mine.data()[5000] = std::byte{0x3c};
  std::vector<std::byte> got(4 * kPage);
  ASSERT_TRUE(read(kAt, got).ok());
  EXPECT_EQ(got[5000], std::byte{0x3c});
  const std::vector<std::byte> put(100, std::byte{0x4d});
  ASSERT_TRUE(endpoint_->space(mm_->pasid()).write(Iova{kAt + 60}, put).ok());
  EXPECT_EQ(mine.data()[159], std::byte{0x4d});
  EXPECT_EQ(mm_->classify(kAt), AddressKind::kAccessible);
}

TEST_F(Reserved, IsMappableInPlace) {
  const auto memory = reserve(4 * kMiB);
  const Mapping mine = client_mapping(*memory);
  ASSERT_TRUE(mm_->attach(memory, kAt));
  auto window =
      endpoint_->space(mm_->pasid()).map(Iova{kAt + 100}, 3 * kMiB, iommu::Access::kWrite);
  ASSERT_TRUE(window) << static_cast<int>(window.error().reason);
  std::memset(window->bytes().data(), 0x19, window->bytes().size());
  EXPECT_EQ(mine.data()[100], std::byte{0x19});
  EXPECT_EQ(mine.data()[3 * kMiB + 99], std::byte{0x19});
}

TEST_F(Reserved, AtAnAlignedAddressUsesSuperpages) {
  const auto memory = reserve(4 * kMiB);
  ASSERT_TRUE(mm_->attach(memory, kAt));
  ASSERT_TRUE(readable(kAt + kMiB));
  const auto walk = host_->describe_walk(mm_->pasid(), kAt + kMiB);
  EXPECT_NE(walk.back().find("2 MiB page"), std::string::npos) << walk.back();
  EXPECT_NE(walk.back().find("host RAM"), std::string::npos) << walk.back();
  EXPECT_EQ(mm_->stats().page_faults, 1u);
}

TEST_F(Reserved, AtAnUnalignedAddressIsReachedTooAndNothingBesideIt) {
  const auto memory = reserve(4 * kMiB);
  const Mapping mine = client_mapping(*memory);
  const std::uint64_t at = kAt + 5 * kPage;
  ASSERT_TRUE(mm_->attach(memory, at));
  mine.data()[0] = std::byte{1};
  mine.data()[4 * kMiB - 1] = std::byte{2};
  std::vector<std::byte> got(4 * kMiB);
  ASSERT_TRUE(read(at, got).ok());
  EXPECT_EQ(got.front(), std::byte{1});
  EXPECT_EQ(got.back(), std::byte{2});
  EXPECT_FALSE(readable(at - kPage));
  EXPECT_FALSE(readable(at + 4 * kMiB));
  const auto result = read(at + kPage, got);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.done_bytes, 4 * kMiB - kPage);
  EXPECT_EQ(result.fault->address.value, at + 4 * kMiB);
}

TEST_F(Reserved, AttachingChecksItsArguments) {
  const auto memory = reserve(2 * kPage);
  const auto error = [&](std::uint64_t at) { return mm_->attach(memory, at).error().value(); };
  EXPECT_EQ(error(kAt + 1), EINVAL);
  EXPECT_EQ(error(kUserAddressEnd), EINVAL);
  EXPECT_EQ(error(kUserAddressEnd - kPage), EINVAL);
  EXPECT_EQ(error(~std::uint64_t{0xfff}), EINVAL);
  EXPECT_EQ(mm_->attach(nullptr, kAt).error().value(), EINVAL);
  EXPECT_EQ(mm_->reserve(0).error().value(), EINVAL);
  EXPECT_EQ(mm_->reserve(~std::uint64_t{0}).error().value(), EINVAL);
  EXPECT_TRUE(mm_->attach(memory, kUserAddressEnd - 2 * kPage));
}

TEST_F(Reserved, RangesDoNotOverlap) {
  const auto first = reserve(4 * kPage);
  const auto second = reserve(4 * kPage);
  ASSERT_TRUE(mm_->attach(first, kAt));
  for (const std::uint64_t at : {kAt - 3 * kPage, kAt, kAt + kPage, kAt + 3 * kPage}) {
    EXPECT_EQ(mm_->attach(second, at).error().value(), EEXIST) << at;
  }
  EXPECT_EQ(mm_->attach(first, kAt + kMiB).error().value(), EEXIST) << "attached already";
  EXPECT_TRUE(mm_->attach(second, kAt + 4 * kPage));
  EXPECT_TRUE(mm_->detach(*second));
  EXPECT_TRUE(mm_->attach(second, kAt - 4 * kPage));
}

TEST_F(Reserved, WhenDetachedIsOutOfReach) {
  const auto memory = reserve(4 * kMiB);
  ASSERT_TRUE(mm_->attach(memory, kAt));
  ASSERT_TRUE(readable(kAt));
  ASSERT_TRUE(readable(kAt + 3 * kMiB));
  ASSERT_TRUE(mm_->detach(*memory));
  EXPECT_FALSE(readable(kAt)) << "a cached translation survived the invalidation";
  EXPECT_FALSE(readable(kAt + 3 * kMiB));
  EXPECT_EQ(mm_->detach(*memory).error().value(), ENOENT);
  EXPECT_EQ(mm_->classify(kAt), AddressKind::kNeedsStaging);
}

TEST_F(Reserved, OtherMemoryAttachedThereAfterwardsIsTheOneReached) {
  const auto first = reserve(2 * kMiB);
  const auto second = reserve(2 * kMiB);
  const Mapping mine = client_mapping(*second);
  mine.data()[9] = std::byte{0x77};
  ASSERT_TRUE(mm_->attach(first, kAt));
  ASSERT_TRUE(readable(kAt));
  ASSERT_TRUE(mm_->detach(*first));
  ASSERT_TRUE(mm_->attach(second, kAt));
  std::vector<std::byte> got(10);
  ASSERT_TRUE(read(kAt, got).ok());
  EXPECT_EQ(got[9], std::byte{0x77});
}

TEST_F(Reserved, WhosePageIsRefusedFaultsThereOnly) {
  const auto memory = reserve(4 * kMiB);
  ASSERT_TRUE(mm_->attach(memory, kAt));
  ASSERT_TRUE(readable(kAt + 5 * kPage));
  mm_->revoke_page(kAt + 5 * kPage, true);
  EXPECT_FALSE(readable(kAt + 5 * kPage));
  EXPECT_TRUE(readable(kAt + 4 * kPage));
  EXPECT_TRUE(readable(kAt + 6 * kPage));
  EXPECT_FALSE(readable(kAt + 5 * kPage));
  EXPECT_EQ(mm_->classify(kAt + 5 * kPage), AddressKind::kUnmapped);
}

TEST_F(Reserved, TheHoleThatAClientPunchesReadsZeros) {
  const auto memory = reserve(4 * kPage);
  const Mapping mine = client_mapping(*memory);
  ASSERT_TRUE(mm_->attach(memory, kAt));
  std::memset(mine.data(), 0x55, 4 * kPage);
  ASSERT_TRUE(readable(kAt));
  ASSERT_EQ(::fallocate(Mm::descriptor(*memory).get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        static_cast<off_t>(kPage), static_cast<off_t>(kPage)),
            0);
  std::vector<std::byte> got(4 * kPage);
  ASSERT_TRUE(read(kAt, got).ok());
  EXPECT_EQ(got[0], std::byte{0x55});
  EXPECT_EQ(got[kPage], std::byte{0});
  EXPECT_EQ(got[2 * kPage], std::byte{0x55});
}

TEST_F(Reserved, InsideOrdinaryMemoryTakesItsPlaceAndGivesItBack) {
  SelfProcess self;
  const auto space = host_->bind(self.access());
  ASSERT_TRUE(space);
  const auto at = self.map(4 * kMiB, PROT_READ | PROT_WRITE);
  const auto inside = (at + 2 * kMiB) & ~(2 * kMiB - 1);
  self.fill(inside, 2 * kMiB, 0x0a);
  const auto byte_at = [&](std::uint64_t address) {
    std::vector<std::byte> got(1);
    EXPECT_TRUE(endpoint_->space((*space)->pasid()).read(Iova{address}, got).ok());
    return got[0];
  };
  EXPECT_EQ(byte_at(inside), std::byte{0x0a});
  const auto memory = (*space)->reserve(2 * kPage);
  ASSERT_TRUE(memory);
  ASSERT_TRUE((*space)->attach(*memory, inside));
  EXPECT_EQ(byte_at(inside), std::byte{0});
  EXPECT_EQ(byte_at(inside + kPage), std::byte{0});
  EXPECT_EQ(byte_at(inside + 2 * kPage), std::byte{0x0a});
  ASSERT_TRUE((*space)->detach(**memory));
  EXPECT_EQ(byte_at(inside), std::byte{0x0a});
}

TEST_F(Reserved, OnlySpacesDoNotReachOrdinaryMemory) {
  static std::byte ordinary[8];
  EXPECT_FALSE(readable(reinterpret_cast<std::uint64_t>(ordinary)));
  EXPECT_EQ(mm_->classify(reinterpret_cast<std::uint64_t>(ordinary)), AddressKind::kNeedsStaging);
  EXPECT_TRUE(mm_->alive());
}

TEST_F(Reserved, ChangesWhileDevicesAccessAreSeenAsOneOrTheOther) {
  SelfProcess self;
  const auto ordinary = self.map(4 * kMiB, PROT_READ | PROT_WRITE);
  self.fill(ordinary, 4 * kMiB, 0x0c);
  const auto own = host_->bind(self.access());
  ASSERT_TRUE(own);
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> seen{0};
  const auto reserved_reader = [&] {
    std::vector<std::byte> got(3 * kPage);
    while (!stop.load()) {
      const auto result = read(kAt + kPage, got);
      // The access may span a change, the copy of one page may not.
      for (std::size_t i = 0; i < result.done_bytes; ++i) {
        if (got[i] != got[i & ~(kPage - 1)]) ADD_FAILURE() << "a page of two memories, byte " << i;
      }
      if (result.ok()) seen.fetch_add(1);
    }
  };
  const auto ordinary_reader = [&] {
    const auto space = endpoint_->space((*own)->pasid());
    std::vector<std::byte> got(3 * kPage);
    for (std::uint64_t at = 0; !stop.load(); at = (at + 7 * kPage) % (3 * kMiB)) {
      EXPECT_TRUE(space.read(Iova{ordinary + at}, got).ok());
      EXPECT_EQ(got[kPage], std::byte{0x0c});
    }
  };
  std::thread readers[] = {std::thread(reserved_reader), std::thread(ordinary_reader)};
  for (int round = 0; round < 200 || (seen.load() < 5 && round < 100000); ++round) {
    const auto memory = reserve(8 * kPage);
    const Mapping mine = client_mapping(*memory);
    std::memset(mine.data(), round % 200 + 1, 8 * kPage);
    EXPECT_TRUE(mm_->attach(memory, kAt));
    (*own)->revoke_page(ordinary + static_cast<std::uint64_t>(round) * kPage % (4 * kMiB), false);
    if (round % 2 == 0) mm_->revoke_page(kAt + kPage, false);
    if (round % 8 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
    EXPECT_TRUE(mm_->detach(*memory));
    EXPECT_TRUE((*host_->bind({}))->unbind());
  }
  stop.store(true);
  for (auto& reader : readers) reader.join();
  EXPECT_GE(seen.load(), 5u);
  EXPECT_EQ(host_->quarantined_pasids(), 0u);
}

TEST_F(Reserved, IsNotReachedThroughAPasidUsedAgain) {
  const auto pasid = mm_->pasid();
  const auto memory = reserve(kPage);
  const Mapping mine = client_mapping(*memory);
  mine.data()[0] = std::byte{0xaa};
  ASSERT_TRUE(mm_->attach(memory, kAt));
  ASSERT_TRUE(readable(kAt));
  ASSERT_TRUE(mm_->unbind());
  EXPECT_FALSE(readable(kAt)) << "the PASID means nothing now";
  // Bind until the number comes round; each new owner sees its own memory or none.
  for (int round = 0; round < 1000; ++round) {
    const auto next = host_->bind({});
    ASSERT_TRUE(next);
    std::vector<std::byte> got(1);
    EXPECT_FALSE(endpoint_->space((*next)->pasid()).read(Iova{kAt}, got).ok())
        << "another tenant's memory";
    if ((*next)->pasid() == pasid) {
      const auto own = (*next)->reserve(kPage);
      ASSERT_TRUE((*next)->attach(*own, kAt));
      ASSERT_TRUE(endpoint_->space(pasid).read(Iova{kAt}, got).ok());
      EXPECT_EQ(got[0], std::byte{0});
      return;
    }
  }
  FAIL() << "the PASID was never used again";
}

}  // namespace
}  // namespace tandem::uacce::detail
