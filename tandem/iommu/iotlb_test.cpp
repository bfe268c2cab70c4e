// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/iotlb.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace tandem::iommu::detail {
namespace {

constexpr DeviceId kDevice{3};
constexpr Pasid kPasid{9};
constexpr std::uint32_t kPscid = 1234;
constexpr Iova kAt{0x7f00'1234'5678};

Translation page_at(std::uint64_t address, unsigned log2_size = 12) {
  Translation translation;
  translation.address = PhysAddr{address};
  translation.log2_size = static_cast<std::uint8_t>(log2_size);
  translation.readable = true;
  return translation;
}

class IotlbTest : public ::testing::Test {
 protected:
  static IotlbContext context(DeviceId device = kDevice, Pasid pasid = kPasid) {
    return IotlbContext::untranslated(device, {pasid, false});
  }
  void fill(Iova at, const Translation& translation) {
    Generations::Snapshot snapshot(generations_, kDevice, kPasid.value);
    snapshot.add_domain(std::nullopt);
    snapshot.add_space({std::nullopt, kPscid}, at);
    iotlb_.fill(context(), at, translation, snapshot.of_translation(translation.log2_size));
  }
  bool hits(Iova at, Attributes need = Iotlb::kNeedRead, IotlbContext of = context()) {
    Stamp stamp;
    const auto hit = iotlb_.lookup(of, at, need, stamp);
    if (hit) found_ = hit->translation(at);
    return hit.has_value();
  }
  Generations generations_;
  Iotlb iotlb_{generations_};
  Translation found_;
};

// [iommu §3.8]
TEST_F(IotlbTest, EveryPageSizeIsFoundFromEveryAddressInIt) {
  for (const unsigned log2_size : {12U, 16U, 21U, 30U, 39U, 48U}) {
    const std::uint64_t base = std::uint64_t{0x11} << log2_size;
    const std::uint64_t frame = std::uint64_t{2} << log2_size;
    fill(Iova{base + 0x123}, page_at(frame + 0x123, log2_size));
    const std::uint64_t last = (std::uint64_t{1} << log2_size) - 1;
    EXPECT_TRUE(hits(Iova{base + 0x456}));
    EXPECT_EQ(found_.address.value, frame + 0x456);
    EXPECT_EQ(found_.log2_size, log2_size);
    EXPECT_TRUE(hits(Iova{base + last}));
    EXPECT_EQ(found_.address.value, frame + last);
    EXPECT_FALSE(hits(Iova{base - 1}));
    EXPECT_FALSE(hits(Iova{base + last + 1}));
  }
}

// [iommu §3.8]
TEST_F(IotlbTest, EntriesBelongToOneRequester) {
  fill(kAt, page_at(0x1000));
  EXPECT_TRUE(hits(kAt));
  const auto none = IotlbContext::untranslated(kDevice, {});
  const auto zero = IotlbContext::untranslated(kDevice, {Pasid{0}, false});
  EXPECT_NE(none.word, zero.word) << "PASID 0 is a PASID";
  for (const auto other : {none, zero, context(DeviceId{4}), context(kDevice, Pasid{10}),
                           IotlbContext::untranslated(kDevice, {kPasid, true}),
                           IotlbContext::translated(kDevice, {kPasid, false}),
                           IotlbContext::translation_request(kDevice, {kPasid, false})}) {
    EXPECT_FALSE(hits(kAt, Iotlb::kNeedRead, other));
  }
}

TEST_F(IotlbTest, AMissingPermissionIsAMiss) {
  fill(kAt, page_at(0x1000));
  EXPECT_FALSE(hits(kAt, Iotlb::kNeedWrite));
  EXPECT_FALSE(hits(kAt, Iotlb::kNeedExecute));
  EXPECT_FALSE(hits(kAt, Iotlb::kNeedRead | Iotlb::kNeedWrite));
}

TEST_F(IotlbTest, EverythingThatATranslationSaysComesBack) {
  Translation translation = page_at(0x5000);
  fill(kAt, translation);
  ASSERT_TRUE(hits(kAt));
  EXPECT_FALSE(found_.writable || found_.executable || found_.global || found_.msi || found_.mrif);
  translation.writable = translation.executable = translation.global = translation.msi = true;
  translation.memory_type = MemoryType::kIo;
  fill(kAt, translation);
  ASSERT_TRUE(hits(kAt));
  EXPECT_TRUE(found_.writable && found_.executable && found_.global && found_.msi);
  EXPECT_FALSE(found_.mrif || found_.guest_address);
  EXPECT_EQ(found_.memory_type, MemoryType::kIo);
  translation.msi = false;
  translation.guest_address = true;
  fill(kAt, translation);
  ASSERT_TRUE(hits(kAt));
  EXPECT_TRUE(found_.guest_address);
  EXPECT_FALSE(found_.msi || found_.mrif);
}

TEST_F(IotlbTest, PasidsInARowAndTheirPagesHaveEntriesOfTheirOwn) {
  constexpr std::uint32_t kProcesses = Iotlb::kEntries / 2;
  const auto fill_of = [&](std::uint32_t process, Iova at) {
    Generations::Snapshot snapshot(generations_, kDevice, process);
    snapshot.add_domain(std::nullopt);
    snapshot.add_space({std::nullopt, process}, at);
    iotlb_.fill(context(kDevice, Pasid{process}), at, page_at(process << kPageShift),
                snapshot.of_translation(kPageShift));
  };
  for (std::uint32_t i = 0; i < kProcesses; ++i) fill_of(i, kAt);
  for (std::uint32_t i = 0; i < kProcesses; ++i) {
    ASSERT_TRUE(hits(kAt, Iotlb::kNeedRead, context(kDevice, Pasid{i}))) << i;
  }
  for (std::uint64_t i = 0; i < Iotlb::kEntries; ++i) fill_of(7, Iova{i << kPageShift});
  for (std::uint64_t i = 0; i < Iotlb::kEntries; ++i) {
    ASSERT_TRUE(hits(Iova{i << kPageShift}, Iotlb::kNeedRead, context(kDevice, Pasid{7}))) << i;
  }
}

TEST_F(IotlbTest, AReaderNeverSeesAMixOfTwoEntries) {
  // Two translations that share one slot: page and frame number agree in every legal state.
  const Iova a{0x1000};
  const Iova b{a.value + Iotlb::kEntries * kPageBytes};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (const Iova at : {a, b}) {
    threads.emplace_back([&, at] {
      while (!stop.load(std::memory_order_relaxed)) fill(at, page_at(at.value << 8));
    });
  }
  std::uint64_t found = 0;
  for (int i = 0; (i < 2'000'000 || found < 1000) && !HasFailure(); ++i) {
    for (const Iova at : {a, b}) {
      Stamp stamp;
      const auto hit = iotlb_.lookup(context(), at, Iotlb::kNeedRead, stamp);
      if (!hit) continue;
      ++found;
      EXPECT_EQ(hit->translation(at).address.value, at.value << 8);
    }
  }
  stop = true;
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace tandem::iommu::detail
