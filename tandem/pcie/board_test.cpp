// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/board.hpp"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "tandem/pcie/spec.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::pcie {
namespace {

using namespace config;

class BoardTest : public testing::Test {
 protected:
  BoardTest() : board_(std::move(*Board::create({.buses = 2}))) {}
  /// As a guest reads: in memory.
  std::uint32_t guest_read(memory::PhysAddr at, std::size_t size_bytes = 4) {
    std::uint32_t value = 0;
    EXPECT_TRUE(board_->memory()
                    .read(at, std::as_writable_bytes(std::span(&value, 1)).first(size_bytes))
                    .ok());
    return value;
  }
  void guest_write(memory::PhysAddr at, std::uint32_t value, std::size_t size_bytes = 4) {
    EXPECT_TRUE(
        board_->memory().write(at, std::as_bytes(std::span(&value, 1)).first(size_bytes)).ok());
  }
  /// Every function that answers, by configuration reads alone.
  std::vector<DeviceId> enumerate() {
    std::vector<DeviceId> found;
    for (unsigned bus = 0; bus < 2; ++bus) {
      for (unsigned device = 0; device < 32; ++device) {
        unsigned functions = 1;
        for (unsigned function = 0; function < functions; ++function) {
          const Bdf slot{static_cast<std::uint8_t>(bus), static_cast<std::uint8_t>(device),
                         static_cast<std::uint8_t>(function)};
          if (guest_read(board_->config_address(slot, kVendorId), 2) == kNoVendor) continue;
          found.push_back(slot.id());
          const auto type = guest_read(board_->config_address(slot, kHeaderType), 1);
          if (function == 0 && HeaderType::MultiFunction::get(type) != 0) functions = 8;
        }
      }
    }
    return found;
  }
  std::unique_ptr<Board> board_;
};

TEST_F(BoardTest, SoftwareFindsTheFunctionsByConfigurationReads) {
  EXPECT_TRUE(enumerate().empty());
  ASSERT_TRUE(board_->plug({0, 3, 0}, {.identity = {.multi_function = true}}));
  ASSERT_TRUE(board_->plug({0, 3, 5}, {}));
  ASSERT_TRUE(board_->plug({0, 4, 1}, {}));  // without a function 0 nobody looks
  ASSERT_TRUE(board_->plug({1, 31, 0}, {}));
  EXPECT_EQ(enumerate(), (std::vector<DeviceId>{{0x18}, {0x1d}, {0x1f8}}));
  ASSERT_TRUE(board_->unplug({0, 3, 5}));
  EXPECT_EQ(enumerate(), (std::vector<DeviceId>{{0x18}, {0x1f8}}));
  EXPECT_EQ(board_->config_read({0, 3, 5}, 0, 4), 0xffffffffu);
}

TEST_F(BoardTest, SlotsAreTakenOnceAndHaveToExist) {
  ASSERT_TRUE(board_->plug({0, 3, 0}, {}));
  EXPECT_EQ(board_->plug({0, 3, 0}, {}).error(), std::make_error_code(std::errc::file_exists));
  for (const Bdf slot : {Bdf{2, 0, 0}, Bdf{0, 32, 0}, Bdf{0, 0, 8}}) {
    EXPECT_EQ(board_->plug(slot, {}).error(), std::make_error_code(std::errc::invalid_argument));
  }
  EXPECT_EQ(board_->unplug({0, 9, 0}).error(),
            std::make_error_code(std::errc::no_such_file_or_directory));
}

TEST_F(BoardTest, ConfigurationAccessesOfEverySizeGoThroughTheWindow) {
  ASSERT_TRUE(board_->plug({0, 3, 0}, {.identity = {.vendor_id = 0x1122, .device_id = 0x3344}}));
  const auto at = [&](std::uint32_t offset) { return board_->config_address({0, 3, 0}, offset); };
  EXPECT_EQ(guest_read(at(0)), 0x33441122u);
  EXPECT_EQ(guest_read(at(2), 2), 0x3344u);
  EXPECT_EQ(guest_read(at(1), 1), 0x11u);
  guest_write(at(kCommand), 0, 2);
  EXPECT_EQ(board_->config_read({0, 3, 0}, kCommand, 2), 0u);
  guest_write(at(kInterruptLine), 7, 1);
  EXPECT_EQ(guest_read(at(kInterruptLine), 1), 7u);
}

TEST_F(BoardTest, TheIommusRegistersAreInMemory) {
  const Board::Options defaults;
  std::uint64_t capabilities = 0;
  ASSERT_TRUE(
      board_->memory()
          .read(defaults.iommu_registers, std::as_writable_bytes(std::span(&capabilities, 1)))
          .ok());
  EXPECT_EQ(capabilities, iommu::kHostCapabilities);
  // Bare: every device reaches memory as it is.
  const std::uint64_t bare = iommu::Ddtp::make(iommu::Ddtp::ModeValue::kBare, 0);
  ASSERT_TRUE(board_->memory()
                  .write(defaults.iommu_registers.plus(iommu::reg::kDdtp),
                         std::as_bytes(std::span(&bare, 1)))
                  .ok());
  Endpoint& device = *board_->plug({0, 3, 0}, {.ats = false, .pri = false});
  std::memset(board_->ram().data(), 0x42, 16);
  std::array<std::byte, 16> got{};
  ASSERT_TRUE(device.space(std::nullopt).read(Iova{defaults.ram.value}, got).ok());
  EXPECT_EQ(got[15], std::byte{0x42});
}

TEST_F(BoardTest, AFenceThatStoresToTheIommusOwnRegistersIsAMemoryFault) {
  namespace reg = iommu::reg;
  const Board::Options defaults;
  const auto targets = {defaults.iommu_registers.plus(reg::kCqt), defaults.configuration};
  for (const memory::PhysAddr target : targets) {
    const iommu::Command fence = iommu::iofence_c({.address = target.value, .data = 0});
    std::memcpy(board_->ram().data(), &fence, sizeof fence);
    iommu::Iommu& iommu = board_->iommu();
    iommu.mmio_write(reg::kCqb, iommu::QueueBase::make(2, defaults.ram.value >> 12), 8);
    iommu.mmio_write(reg::kCqcsr, iommu::Cqcsr::Cqen::make(1), 4);
    iommu.mmio_write(reg::kCqt, 1, 4);
    EXPECT_EQ(iommu::Cqcsr::Cqmf::get(iommu.mmio_read(reg::kCqcsr, 4)), 1U);
    EXPECT_EQ(iommu.mmio_read(reg::kCqh, 4), 0U);
    iommu.mmio_write(reg::kCqcsr, iommu::Cqcsr::Cqmf::kMask, 4);
  }
}

// Moving the BAR would wait for the access that it comes from.
TEST_F(BoardTest, ADeviceThatAccessesMemoryInReturnReachesNoConfigurationRegister) {
  struct Doorbell final : memory::IoRegion {
    memory::Outcome read(std::uint64_t, std::span<std::byte> to) override {
      return {to.size(), memory::Fault::kNone};
    }
    memory::Outcome write(std::uint64_t, std::span<const std::byte> from) override {
      const std::array<std::byte, 4> zero{};
      result = device->space(std::nullopt).write(target, zero);
      return {from.size(), memory::Fault::kNone};
    }
    Endpoint* device = nullptr;
    Iova target;
    DmaResult result;
  };
  constexpr Bdf kSlot{0, 3, 0};
  constexpr std::uint32_t kPlace = 0x7000'0000;
  const auto doorbell = std::make_shared<Doorbell>();
  board_->iommu().mmio_write(iommu::reg::kDdtp, iommu::Ddtp::make(iommu::Ddtp::ModeValue::kBare, 0),
                             8);
  Endpoint& device = *board_->plug(
      kSlot, {.ats = false, .pri = false, .bars = {{.region = doorbell, .is_64_bit = false}}});
  doorbell->device = &device;
  guest_write(board_->config_address(kSlot, kBar0), kPlace);
  guest_write(board_->config_address(kSlot, kCommand),
              static_cast<std::uint32_t>(Command::MemorySpaceEnable::kMask |
                                         Command::BusMasterEnable::kMask),
              2);
  doorbell->target = {board_->config_address(kSlot, kBar0).value};
  guest_write({kPlace}, 1);
  ASSERT_TRUE(doorbell->result.fault);
  EXPECT_EQ(doorbell->result.fault->reason, DmaFault::Reason::kMemory);
  EXPECT_EQ(guest_read(board_->config_address(kSlot, kBar0)), kPlace);
  doorbell->target = {Board::Options{}.ram.value};
  guest_write({kPlace}, 1);
  EXPECT_TRUE(doorbell->result.ok());
}

TEST_F(BoardTest, AFunctionStaysWhereAnAccessOfItDoesNotEnd) {
  /// Does not answer until it is told to.
  struct Slow final : memory::IoRegion {
    memory::Outcome read(std::uint64_t, std::span<std::byte> to) override {
      reached = true;
      while (!answers) std::this_thread::yield();
      return {to.size(), memory::Fault::kNone};
    }
    memory::Outcome write(std::uint64_t, std::span<const std::byte>) override {
      return {0, memory::Fault::kRefused};
    }
    std::atomic<bool> reached{false}, answers{false};
  };
  const auto slow = std::make_shared<Slow>();
  ASSERT_TRUE(board_->memory().add_io({0x4000'0000}, kPageSize, slow));
  board_->iommu().mmio_write(iommu::reg::kDdtp, iommu::Ddtp::make(iommu::Ddtp::ModeValue::kBare, 0),
                             8);
  Endpoint& device = *board_->plug(
      {0, 3, 0}, {.ats = false, .pri = false, .reset_timeout = std::chrono::milliseconds(5)});
  std::jthread access([&] {
    std::array<std::byte, 4> word{};
    (void)device.space(std::nullopt).read(Iova{0x4000'0000}, word);
  });
  while (!slow->reached) std::this_thread::yield();
  EXPECT_EQ(board_->unplug({0, 3, 0}).error(),
            std::make_error_code(std::errc::device_or_resource_busy));
  EXPECT_EQ(board_->config_read({0, 3, 0}, kCommand, 2), 0U) << "disabled";
  slow->answers = true;
  access.join();
  EXPECT_TRUE(board_->unplug({0, 3, 0}));
}

/// A guest that has given the IOMMU its work and sleeps: nobody touches a register any more.
class SleepingGuest : public testing::Test {
 protected:
  static constexpr int kNone = -1;

  class Device final : public iommu::DeviceCallbacks {
   public:
    iommu::InvalidationReply invalidate(const iommu::AtsInvalidation& request) override {
      itag = request.itag;
      return iommu::InvalidationReply::kPending;
    }
    void page_response(const iommu::PageResponse&) override {}
    std::uint8_t itag = 0;
  };

  void start(std::chrono::nanoseconds timeout) {
    board_ = std::move(*Board::create(
        {.iommu = {.capabilities = iommu::kAllCapabilities, .invalidation_timeout = timeout}}));
    board_->iommu().on_interrupt(
        [this](iommu::Iommu::Interrupt which) { interrupted_ = static_cast<int>(which); });
    port_ = std::move(*board_->iommu().attach({8}, device_));
    write(iommu::reg::kCqb, iommu::QueueBase::make(2, Board::Options().ram.value >> 12), 8);
    write(iommu::reg::kCqcsr, iommu::Cqcsr::Cqen::make(1) | iommu::Cqcsr::Cie::make(1));
  }
  void write(std::uint32_t offset, std::uint64_t value, unsigned size_bytes = 4) {
    board_->iommu().mmio_write(offset, value, size_bytes);
  }
  void invalidate_and_fence() {
    iommu::Command fence = iommu::iofence_c({});
    fence.words[0] |= iommu::Iofence::Wsi::make(1);
    const iommu::Command commands[] = {iommu::ats_inval(8, std::nullopt, 0, kPageSize), fence};
    std::memcpy(board_->ram().data(), commands, sizeof commands);
    write(iommu::reg::kCqt, 2);
  }
  void wait_for(iommu::Iommu::Interrupt which) {
    while (interrupted_ != static_cast<int>(which)) std::this_thread::yield();
  }

  Device device_;
  std::unique_ptr<Board> board_;
  std::unique_ptr<iommu::Port> port_;
  std::atomic<int> interrupted_{kNone};  // an Iommu::Interrupt
};

// [iommu §4.1.4]
TEST_F(SleepingGuest, IsToldOfAnInvalidationThatTimesOut) {
  constexpr std::chrono::milliseconds kTimeout{5};
  start(kTimeout);
  const auto begin = std::chrono::steady_clock::now();
  invalidate_and_fence();
  wait_for(iommu::Iommu::Interrupt::kCommandQueue);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, kTimeout);
  EXPECT_EQ(iommu::Cqcsr::CmdTo::get(board_->iommu().mmio_read(iommu::reg::kCqcsr, 4)), 1U);
}

// [iommu §4.1.2]
TEST_F(SleepingGuest, IsToldOfAFenceThatADeviceLetsPassFromAReaderSection) {
  start(std::chrono::hours(1));
  invalidate_and_fence();
  {
    const std::scoped_lock section(rcu::rcu_default_domain());
    port_->complete_invalidation(device_.itag);
  }
  wait_for(iommu::Iommu::Interrupt::kCommandQueue);
  EXPECT_EQ(iommu::Cqcsr::FenceWIp::get(board_->iommu().mmio_read(iommu::reg::kCqcsr, 4)), 1U);
}

// [iommu §6.21]
TEST_F(SleepingGuest, IsToldOfAnOverflowOfIohpmcycles) {
  start(std::chrono::hours(1));
  write(iommu::reg::kIohpmcycles, iommu::Iohpmcycles::Counter::kMask - 5'000'000, 8);
  wait_for(iommu::Iommu::Interrupt::kPmu);
}

// A message that clears the bit whose condition lasts makes the bit rise again.
TEST_F(BoardTest, AMessageToTheIommusOwnRegistersReachesNothing) {
  namespace reg = iommu::reg;
  constexpr std::uint64_t kCapabilities =
      iommu::Capabilities::Igs::set(iommu::kHostCapabilities, iommu::Capabilities::kIgsMsi);
  board_ = std::move(*Board::create({.iommu = {.capabilities = kCapabilities}}));
  const Board::Options defaults;
  iommu::Iommu& iommu = board_->iommu();
  iommu.mmio_write(reg::kFqb, iommu::QueueBase::make(1, defaults.ram.value >> 12), 8);
  iommu.mmio_write(reg::kMsiAddress, defaults.iommu_registers.value + reg::kIpsr, 8);
  iommu.mmio_write(reg::kMsiData, iommu::Ipsr::Fip::make(1), 4);
  iommu.mmio_write(reg::kFqcsr, iommu::Fqcsr::Fqen::make(1) | iommu::Fqcsr::Fie::make(1), 4);
  // ddtp is Off: every access is a fault. The second one does not fit into the queue.
  Endpoint& device = *board_->plug({0, 3, 0}, {.ats = false, .pri = false});
  std::array<std::byte, 4> word{};
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(device.space(std::nullopt).read(Iova{defaults.ram.value}, word).ok());
  }
  EXPECT_EQ(iommu::Fqcsr::Fqof::get(iommu.mmio_read(reg::kFqcsr, 4)), 1U);
  iommu.mmio_write(reg::kIpsr, iommu::Ipsr::Fip::make(1), 4);
  EXPECT_EQ(iommu.mmio_read(reg::kIpsr, 4), iommu::Ipsr::Fip::make(1)) << "the condition lasts";
}

TEST_F(BoardTest, ThereAreAtMost256Buses) {
  EXPECT_EQ(Board::create({.buses = 257}).error(),
            std::make_error_code(std::errc::invalid_argument));
}

TEST_F(BoardTest, StressFunctionsComeAndGoUnderConfigurationReads) {
  std::atomic<bool> stop{false};
  std::vector<std::jthread> guests;
  for (int t = 0; t < 2; ++t) {
    guests.emplace_back([&] {
      while (!stop) {
        const std::uint32_t vendor = guest_read(board_->config_address({0, 5, 0}, 0), 2);
        EXPECT_TRUE(vendor == kNoVendor || vendor == Identity{}.vendor_id);
        guest_write(board_->config_address({0, 5, 0}, kInterruptLine), 3, 1);
      }
    });
  }
  for (int round = 0; round < 100; ++round) {
    ASSERT_TRUE(board_->plug({0, 5, 0}, {}));
    if (round % 2 == 0) std::this_thread::yield();
    ASSERT_TRUE(board_->unplug({0, 5, 0}));
  }
  stop = true;
}

}  // namespace
}  // namespace tandem::pcie
