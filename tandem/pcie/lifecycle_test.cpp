// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <latch>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "tandem/pcie/detail/test_bench.hpp"
#include "tandem/pcie/pcie.hpp"
#include "tandem/pcie/spec.hpp"

namespace tandem::pcie {
namespace {

using namespace std::chrono_literals;
using namespace config;
using Bench = detail::TestBench;
using Code = iommu::PageResponse::Code;
using Reason = DmaFault::Reason;
using memory::Fault;
using memory::Outcome;

constexpr std::uint64_t kPage = kPageSize;
constexpr Pasid kPasid{1};
constexpr std::uint64_t kVa = 0x7f12'3456'7000;
constexpr std::uint32_t kPcie = 0x40;
constexpr std::uint32_t kAts = kExtendedCapabilities + kPasidBytes;
constexpr std::uint32_t kPri = kAts + kAtsBytes;

/// Blocks in write() until released.
class Gate : public memory::IoRegion {
 public:
  Outcome read(std::uint64_t, std::span<std::byte> to) override {
    return {to.size(), Fault::kNone};
  }
  Outcome write(std::uint64_t, std::span<const std::byte> from) override {
    entered.count_down();
    release.wait();
    done = true;
    return {from.size(), Fault::kNone};
  }
  std::latch entered{1};
  std::latch release{1};
  std::atomic<bool> done{false};
};

class ResetTest : public testing::Test {
 protected:
  ResetTest() { bench.bind(kPasid); }
  Endpoint& open(Endpoint::Options options = {.reset_timeout = 20s}) {
    endpoint_ = bench.endpoint(options);
    return *endpoint_;
  }
  /// As a driver does after a reset.
  static void enable(Endpoint& device) {
    device.config_write(kExtendedCapabilities + kPasidControl, 1, 2);
    device.config_write(kAts + kAtsControl, 0x8000, 2);
    device.config_write(kPri + kPageRequestAllocation, 32, 4);
    device.config_write(kPri + kPageRequestControl, 1, 2);
    device.config_write(kCommand, Command::BusMasterEnable::kMask, 2);
  }
  static void flr(Endpoint& device) {
    const std::uint32_t control = device.config_read(kPcie + kDeviceControl, 2);
    device.config_write(kPcie + kDeviceControl, control | DeviceControl::InitiateFlr::kMask, 2);
  }
  static bool pending(Endpoint& device) {
    return DeviceStatus::TransactionsPending::get(device.config_read(kPcie + kDeviceStatus, 2)) !=
           0;
  }

  Bench bench;
  std::unique_ptr<Endpoint> endpoint_;
};

// [PCIe "Function Level Reset (FLR)"]
TEST_F(ResetTest, RegistersAreAsAtTheBeginning) {
  Endpoint& device = open();
  device.config_write(kPcie + kDeviceControl, 0x00ff, 2);
  device.config_write(kInterruptLine, 9, 1);
  flr(device);
  EXPECT_EQ(device.config_read(kCommand, 2), 0u);
  EXPECT_EQ(device.config_read(kPcie + kDeviceControl, 2), 0x28f0u)
      << "the bit itself reads 0; Max_Payload_Size stays";
  EXPECT_EQ(device.config_read(kInterruptLine, 1), 0u);
  EXPECT_EQ(device.config_read(kExtendedCapabilities + kPasidControl, 2), 0u);
  EXPECT_EQ(device.config_read(kAts + kAtsControl, 2), 0u);
  EXPECT_EQ(device.config_read(kPri + kPageRequestControl, 2), 0u);
  EXPECT_EQ(device.config_read(kPri + kPageRequestAllocation, 4), 0u);
}

// Catches the planted fault pcie-reset-keeps-atc.
TEST_F(ResetTest, TheAtcIsEmptyAfterwards) {
  const std::uint64_t physical = bench.allocate();
  bench.map(kPasid, kVa, physical);
  Endpoint& device = open();
  std::array<std::byte, 8> word{};
  ASSERT_TRUE(device.space(kPasid).read({kVa}, word).ok());
  ASSERT_TRUE(device.space(std::nullopt).read({physical}, word).ok());
  flr(device);
  EXPECT_EQ(device.space(kPasid).read({kVa}, word).fault->reason, Reason::kDisabled);
  EXPECT_EQ(device.space(std::nullopt).read({physical}, word).fault->reason, Reason::kDisabled);
  EXPECT_FALSE(device.space(kPasid).copy_cached({kVa}, {kVa + 8}, 8));
  enable(device);
  const auto asked = bench.iommu.stats().translations;
  EXPECT_TRUE(device.space(kPasid).read({kVa}, word).ok());
  EXPECT_EQ(bench.iommu.stats().translations, asked + 1);
}

TEST_F(ResetTest, AnOutstandingPageRequestIsAborted) {
  bench.answers = false;
  std::latch sent{1};
  Endpoint& device = open({.page_request_timeout = 60s,
                           .page_request_sent = [&](const auto&) { sent.count_down(); },
                           .reset_timeout = 20s});
  DmaResult result;
  std::jthread requester([&] {
    std::array<std::byte, 8> word{};
    result = device.space(kPasid).read({kVa}, word);
  });
  sent.wait();
  const auto stopped = [&] {
    return PageRequestStatus::Stopped::get(device.config_read(kPri + kPageRequestStatus, 2)) != 0;
  };
  EXPECT_TRUE(device.reset());
  requester.join();
  ASSERT_TRUE(result.fault);
  EXPECT_EQ(result.fault->reason, Reason::kDisabled);
  // The request is still without its response, until software says that none comes.
  EXPECT_FALSE(stopped());
  device.config_write(kPri + kPageRequestControl, PageRequestControl::Reset::kMask, 2);
  EXPECT_TRUE(stopped());
}

// Catches the planted fault pcie-reset-skip-wait.
TEST_F(ResetTest, WindowsAreWaitedFor) {
  bench.map(kPasid, kVa, bench.allocate());
  Endpoint& device = open();
  auto window = std::make_optional(*device.space(kPasid).map({kVa}, kPage, Access::kWrite));
  std::atomic<bool> reset{false};
  std::jthread software([&] {
    EXPECT_TRUE(device.reset());
    reset = true;
  });
  // New operations end at once while the reset still waits for us.
  std::array<std::byte, 8> word{};
  while (!reset && device.space(kPasid).read({kVa}, word).ok()) std::this_thread::yield();
  EXPECT_FALSE(device.space(kPasid).read({kVa}, word).ok());
  const auto patience = std::chrono::steady_clock::now() + 20ms;
  while (!reset && std::chrono::steady_clock::now() < patience) std::this_thread::yield();
  EXPECT_FALSE(reset);
  EXPECT_TRUE(pending(device));
  window.reset();
  software.join();
  EXPECT_TRUE(reset);
}

TEST_F(ResetTest, TheDeviceIsToldAndDropsItsWindows) {
  bench.map(kPasid, kVa, bench.allocate());
  std::optional<Window> window;
  bool told = false;
  Endpoint* self = nullptr;
  Endpoint& device = open({.reset_timeout = 20s, .on_reset = [&] {
                             told = true;
                             std::array<std::byte, 8> word{};
                             EXPECT_FALSE(self->space(kPasid).read({kVa}, word).ok());
                             EXPECT_EQ(self->config_read(kCommand, 2), 0u);
                             window.reset();
                           }});
  self = &device;
  window = std::move(*device.space(kPasid).map({kVa}, kPage, Access::kWrite));
  EXPECT_TRUE(device.reset());
  EXPECT_TRUE(told);
}

// Catches the planted fault pcie-reset-skip-wait.
TEST_F(ResetTest, AnAccessToAnIoRegionIsWaitedFor) {
  constexpr std::uint64_t kPhysical = 0x4000'0000;
  const auto gate = std::make_shared<Gate>();
  ASSERT_TRUE(bench.memory.add_io({kPhysical}, kPage, gate));
  bench.map(kPasid, kVa, kPhysical);
  Endpoint& device = open();
  std::jthread writer([&] {
    const std::array<std::byte, 8> word{};
    EXPECT_TRUE(device.space(kPasid).write({kVa}, word).ok());
  });
  gate->entered.wait();
  std::atomic<bool> reset{false};
  std::jthread software([&] {
    EXPECT_TRUE(device.reset());
    EXPECT_TRUE(gate->done);
    reset = true;
  });
  std::array<std::byte, 8> word{};
  while (!reset && device.space(kPasid).read({kVa}, word).ok()) std::this_thread::yield();
  EXPECT_FALSE(reset);
  gate->release.count_down();
  software.join();
}

TEST_F(ResetTest, AFunctionWhoseWindowsStayIsNotEnabledBeforeTheyAreBack) {
  bench.map(kPasid, kVa, bench.allocate());
  Endpoint& device = open({.reset_timeout = 1ms});
  auto window = std::make_optional(*device.space(kPasid).map({kVa}, kPage, Access::kWrite));
  EXPECT_FALSE(device.reset());
  enable(device);
  std::array<std::byte, 8> word{};
  EXPECT_EQ(device.space(kPasid).read({kVa}, word).fault->reason, Reason::kDisabled);
  EXPECT_TRUE(pending(device));
  window.reset();
  EXPECT_FALSE(pending(device));
  enable(device);
  EXPECT_TRUE(device.space(kPasid).read({kVa}, word).ok());
}

// Catches the planted fault pcie-reset-keeps-operations.
TEST_F(ResetTest, AnOperationOfTheOldLifeDoesNotGoOnInTheNewOne) {
  // The operation stands at its page fault while the function is reset and enabled again, and the
  // page appears.
  const std::uint64_t first = bench.allocate();
  bench.map(kPasid, kVa, first);
  Endpoint* self = nullptr;
  const std::uint64_t second = bench.allocate();
  bench.on_page_request = [&](const iommu::PageRequestRecord& record) {
    flr(*self);
    enable(*self);
    bench.map(kPasid, record.address(), second);
    std::array<std::byte, 8> word{};
    EXPECT_TRUE(self->space(kPasid).read(Iova{record.address()}, word).ok());
    return Code::kSuccess;
  };
  Endpoint& device = open();
  self = &device;
  std::vector<std::byte> from(2 * kPage, std::byte{7});
  ASSERT_TRUE(device.space(kPasid).read({kVa}, std::span(from).first(8)).ok());
  const DmaResult result = device.space(kPasid).write({kVa}, from);
  ASSERT_TRUE(result.fault);
  EXPECT_EQ(result.fault->reason, Reason::kDisabled);
  EXPECT_EQ(result.done_bytes, kPage);
  EXPECT_EQ(bench.host(second)[0], std::byte{0});
}

// Catches the planted faults pcie-reset-skip-wait and pcie-reset-keeps-atc.
TEST_F(ResetTest, StressNothingOfTheOldLifeReachesMemory) {
  // Threads write to memory by copying and in place, each to its own part. After each reset all of
  // it is filled with a mark, which has to stay until the function is enabled again.
  constexpr std::byte kMark{0x5a};
  const std::uint64_t physical = bench.allocate(2);
  bench.map(kPasid, kVa, physical);
  bench.map(kPasid, kVa + kPage, physical + kPage);
  Endpoint& device = open();
  std::atomic<bool> stop{false};
  std::atomic<int> copies{0}, windows{0};
  std::vector<std::jthread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      const AddressSpace space = device.space(kPasid);
      const std::vector<std::byte> buffer(kPage / 2, std::byte{1});
      while (!stop) {
        if (t == 0) {
          const auto window = space.map({kVa}, kPage, Access::kWrite);
          if (!window) continue;
          std::ranges::fill(window->bytes(), std::byte{2});
          windows.fetch_add(1, std::memory_order_relaxed);
        } else {
          const std::uint64_t at = kVa + kPage + (t == 1 ? 0 : kPage / 2);
          (void)space.write({at}, buffer);
          copies.fetch_add(1, std::memory_order_relaxed);
        }
      }
    });
  }
  std::byte* const host = bench.host(physical);
  for (int round = 0; round < 200 || copies < 100 || windows < 100; ++round) {
    enable(device);
    if (round % 2 == 0) std::this_thread::yield();
    ASSERT_TRUE(device.reset());
    std::fill_n(host, 2 * kPage, kMark);
    for (int i = 0; i < 3; ++i) std::this_thread::yield();
    EXPECT_EQ(std::count(host, host + 2 * kPage, kMark), static_cast<std::ptrdiff_t>(2 * kPage));
    if (HasFailure()) break;
  }
  stop = true;
}

}  // namespace
}  // namespace tandem::pcie
