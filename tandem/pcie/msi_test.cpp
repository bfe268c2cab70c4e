// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/pcie/detail/test_bench.hpp"
#include "tandem/pcie/pcie.hpp"
#include "tandem/pcie/spec.hpp"

namespace tandem::pcie {
namespace {

using namespace config;
using Bench = detail::TestBench;
using Capabilities = iommu::Capabilities;
using Reason = DmaFault::Reason;
using namespace std::chrono_literals;

constexpr std::uint16_t kData = 0x0ab8;

/// An interrupt controller: remembers the words that are stored to it.
class Controller : public memory::IoRegion {
 public:
  memory::Outcome read(std::uint64_t, std::span<std::byte>) override {
    return {0, memory::Fault::kRefused};
  }
  memory::Outcome write(std::uint64_t offset, std::span<const std::byte> from) override {
    std::uint32_t word = 0;
    EXPECT_EQ(from.size(), sizeof word);
    std::memcpy(&word, from.data(), sizeof word);
    received.push_back({offset, word});
    if (const auto call = std::exchange(on_write, nullptr)) call();
    return {from.size(), memory::Fault::kNone};
  }
  std::vector<std::pair<std::uint64_t, std::uint32_t>> received;
  std::function<void()> on_write;  // called once
};

/// A function with eight vectors in a guest whose one interrupt file is Bench::kInterruptFile.
class MsiTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kController = 0x4000'0000;
  using Words = std::vector<std::pair<std::uint64_t, std::uint32_t>>;

  MsiTest()
      : bench_({.capabilities = iommu::kHostCapabilities | Capabilities::Sv39x4::make(1) |
                                Capabilities::MsiFlat::make(1) | Capabilities::MsiMrif::make(1) |
                                Capabilities::AmoMrif::make(1),
                .invalidation_timeout = 20s}) {
    bench_.enter_guest(/*t2gpa=*/false);
    bench_.set_interrupt_file(iommu::MsiPte::basic(kController >> 12));
    EXPECT_TRUE(bench_.memory.add_io({kController}, kPageSize, controller_));
    open({.msi_vectors = 8});
  }
  void open(Endpoint::Options options) {
    endpoint_.reset();
    endpoint_ = bench_.endpoint(std::move(options));
  }
  std::uint32_t read(std::uint32_t offset, unsigned size_bytes = 4) {
    return endpoint_->config_read(offset, size_bytes);
  }
  void write(std::uint32_t offset, std::uint32_t value, unsigned size_bytes = 4) {
    endpoint_->config_write(offset, value, size_bytes);
  }
  std::uint32_t capability() { return detail::find_capability(*endpoint_, kMsiCapabilityId); }
  /// As a guest's driver does; `log2_vectors`: how many it gives to the function.
  void enable(unsigned log2_vectors, std::uint64_t address = Bench::kInterruptFile) {
    const std::uint32_t at = capability();
    ASSERT_NE(at, 0U);
    write(at + kMsiAddress, static_cast<std::uint32_t>(address));
    write(at + kMsiUpperAddress, static_cast<std::uint32_t>(address >> 32));
    write(at + kMsiData, kData, 2);
    write(at + kMsiControl,
          static_cast<std::uint32_t>(MsiControl::Enable::make(1) |
                                     MsiControl::MultipleMessageEnable::make(log2_vectors)),
          2);
  }

  Bench bench_;
  std::shared_ptr<Controller> controller_ = std::make_shared<Controller>();
  std::unique_ptr<Endpoint> endpoint_;
};

// [PCIe "MSI Capability Structures"]
TEST_F(MsiTest, TheCapabilityOffersVectorsWithMasks) {
  const std::uint32_t at = capability();
  EXPECT_EQ(read(at + kMsiControl, 2), 0x186U) << "8 vectors, 64-bit addresses, masks; off";
  write(at + kMsiControl, 0xffff, 2);
  EXPECT_EQ(read(at + kMsiControl, 2), 0x1f7U);
  for (const auto& [offset, kept] : {std::pair{kMsiAddress, 0xffff'fffcU},
                                     {kMsiUpperAddress, 0xffff'ffffU},
                                     {kMsiData, 0xffffU},
                                     {kMsiMask, 0xffU},
                                     {kMsiPending, 0U}}) {
    write(at + offset, 0xffff'ffff);
    EXPECT_EQ(read(at + offset), kept) << offset;
  }
  open({});
  EXPECT_EQ(capability(), 0U);
  EXPECT_EQ(endpoint_->send_msi(0).error().reason, Reason::kDisabled);
}

TEST_F(MsiTest, AMessageGoesThroughTheIommuToTheInterruptFile) {
  EXPECT_EQ(endpoint_->send_msi(0).error().reason, Reason::kDisabled);
  enable(3);
  for (const unsigned vector : {0U, 7U, 9U}) {
    EXPECT_TRUE(endpoint_->send_msi(vector).has_value()) << vector;
  }
  EXPECT_EQ(controller_->received, (Words{{0, kData}, {0, kData | 7}, {0, kData | 1}}));
}

TEST_F(MsiTest, FewerVectorsAreShared) {
  enable(1);
  for (const unsigned vector : {3U, 4U}) EXPECT_TRUE(endpoint_->send_msi(vector).has_value());
  EXPECT_EQ(controller_->received, (Words{{0, kData | 1}, {0, kData}}));
  enable(7);  // more than there are
  EXPECT_TRUE(endpoint_->send_msi(15).has_value());
  EXPECT_EQ(controller_->received.back().second, kData | 7U);
}

TEST_F(MsiTest, AMaskedVectorIsPendingAndSentWhenItIsUnmasked) {
  enable(3);
  const std::uint32_t at = capability();
  write(at + kMsiMask, 0x0c);
  for (const unsigned vector : {2U, 3U, 2U, 4U}) {
    EXPECT_TRUE(endpoint_->send_msi(vector).has_value());
  }
  EXPECT_EQ(controller_->received, (Words{{0, kData | 4}}));
  EXPECT_EQ(read(at + kMsiPending), 0x0cU);
  write(at + kMsiMask, 0x04);
  EXPECT_EQ(read(at + kMsiPending), 0x04U);
  write(at + kMsiMask, 0);
  EXPECT_EQ(read(at + kMsiPending), 0U);
  EXPECT_EQ(controller_->received, (Words{{0, kData | 4}, {0, kData | 3}, {0, kData | 2}}));
  write(at + kMsiMask, 1);
  EXPECT_TRUE(endpoint_->send_msi(0).has_value());
  EXPECT_TRUE(endpoint_->reset());
  EXPECT_EQ(read(at + kMsiPending), 0U) << "a reset forgets what is pending";
}

TEST_F(MsiTest, NeedsBusMasteringAndAWayToTheController) {
  enable(0);
  write(kCommand, 0, 2);
  EXPECT_EQ(endpoint_->send_msi(0).error().reason, Reason::kDisabled);
  write(kCommand, static_cast<std::uint32_t>(Command::BusMasterEnable::kMask), 2);
  EXPECT_TRUE(endpoint_->send_msi(0).has_value());
  enable(0, 0x7000'0000);  // no memory of the guest
  const auto refused = endpoint_->send_msi(0);
  EXPECT_EQ(refused.error().reason, Reason::kBlocked);
  EXPECT_EQ(refused.error().address.value, 0x7000'0000U);
  EXPECT_EQ(bench_.take_faults(), 1U);
}

TEST_F(MsiTest, WhatIsPendingWaitsForBusMastering) {
  enable(3);
  const std::uint32_t at = capability();
  write(at + kMsiMask, 1);
  EXPECT_TRUE(endpoint_->send_msi(0).has_value());
  write(kCommand, 0, 2);
  write(at + kMsiMask, 0);
  EXPECT_EQ(read(at + kMsiPending), 1U);
  EXPECT_EQ(controller_->received, Words{});
  write(kCommand, static_cast<std::uint32_t>(Command::BusMasterEnable::kMask), 2);
  EXPECT_EQ(read(at + kMsiPending), 0U);
  EXPECT_EQ(controller_->received, (Words{{0, kData}}));
}

TEST_F(MsiTest, AMessageOutlivesAnotherPermission) {
  constexpr std::uint32_t kAts = kExtendedCapabilities + kPasidBytes;
  open({.msi_vectors = 8, .reset_timeout = 20s});
  enable(3);
  const std::uint32_t at = capability();
  write(at + kMsiMask, 3);
  for (const unsigned vector : {0U, 1U}) EXPECT_TRUE(endpoint_->send_msi(vector).has_value());
  // The end of the life waits for the window; it begins while vector 0 is stored.
  const AddressSpace space = endpoint_->space(std::nullopt);
  const std::uint64_t buffer = bench_.allocate();
  auto window = space.map({buffer}, 64, Access::kWrite);
  ASSERT_TRUE(window.has_value());
  std::jthread software;
  controller_->on_write = [&] {
    software = std::jthread([&] { write(kAts + kAtsControl, 0, 2); });
    std::array<std::byte, 4> to{};
    while (space.read({buffer}, to).ok()) std::this_thread::yield();
  };
  std::jthread([&] { write(at + kMsiMask, 0); }).join();
  EXPECT_EQ(read(at + kMsiPending), 2U);
  EXPECT_TRUE(endpoint_->send_msi(4).has_value());
  EXPECT_EQ(read(at + kMsiPending), 0x12U);
  EXPECT_EQ(controller_->received, (Words{{0, kData}}));
  *window = Window();
  software.join();
  EXPECT_EQ(read(at + kMsiPending), 0U);
  EXPECT_EQ(controller_->received, (Words{{0, kData}, {0, kData | 1}, {0, kData | 4}}));
}

// [iommu §3.3.3] [AIA "MSI PTE, MRIF mode"]
TEST_F(MsiTest, AnInterruptFileInMemoryTakesMessagesAndWordsThatAreWritten) {
  const std::uint64_t file = bench_.allocate();
  const std::uint64_t notice = bench_.allocate();
  bench_.set_interrupt_file(iommu::MsiPte::mrif(file, notice >> 12, 0x155));
  const auto word = [&](std::uint64_t at) {
    std::uint32_t value = 0;
    std::memcpy(&value, bench_.host(at), sizeof value);
    std::memset(bench_.host(at), 0, sizeof value);
    return value;
  };
  for (const bool ats : {true, false}) {
    open({.ats = ats, .pri = ats, .msi_vectors = 1});
    write(capability() + kMsiData, 5, 2);
    write(capability() + kMsiAddress, Bench::kInterruptFile);
    write(capability() + kMsiControl, 1, 2);
    EXPECT_TRUE(endpoint_->send_msi(0).has_value());
    EXPECT_EQ(word(file), 1U << 5);
    EXPECT_EQ(word(notice), 0x155U);

    const AddressSpace space = endpoint_->space(std::nullopt);
    const std::uint32_t data = 0x21;
    const auto bytes = std::as_bytes(std::span(&data, 1));
    EXPECT_TRUE(space.write({Bench::kInterruptFile}, bytes).ok()) << ats;
    EXPECT_EQ(word(file + 4), 1U << 1);
    EXPECT_EQ(word(notice), 0x155U);
    EXPECT_TRUE(space.write({Bench::kInterruptFile + 8}, bytes).ok()) << "no MSI: discarded";
    EXPECT_EQ(word(notice), 0U);
    const auto asked = bench_.iommu.stats().page_requests;
    EXPECT_EQ(space.write({Bench::kInterruptFile}, bytes.first(2)).fault->reason, Reason::kMemory);
    EXPECT_EQ(word(file), 0U);
    std::array<std::byte, 4> to{};
    EXPECT_EQ(space.read({Bench::kInterruptFile}, to).fault->reason, Reason::kMemory);
    EXPECT_EQ(bench_.iommu.stats().page_requests, asked) << "the page is present";
    EXPECT_FALSE(space.map({Bench::kInterruptFile}, 4, Access::kWrite).has_value());

    if (const auto window = space.map({bench_.allocate()}, 4, Access::kWrite)) {
      const auto refused = endpoint_->send_msi(0);
      ASSERT_FALSE(refused.has_value()) << "its notice may go to an I/O region";
      EXPECT_EQ(refused.error().reason, Reason::kNotMappable);
      EXPECT_EQ(word(file), 0U);
    }

    bench_.take_faults();
    ASSERT_TRUE(bench_.memory.set_poison({file}, 8));
    EXPECT_EQ(space.write({Bench::kInterruptFile}, bytes).fault->reason, Reason::kPoisoned);
    EXPECT_EQ(bench_.take_faults(), 1U);
    ASSERT_TRUE(bench_.memory.clear_poison({file}, 8));
    EXPECT_EQ(word(file + 4), 0U);
  }
}

}  // namespace
}  // namespace tandem::pcie
