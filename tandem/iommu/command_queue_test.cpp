// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/command_queue.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/iommu/detail/test_board.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::iommu::detail {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

using Interrupt = Iommu::Interrupt;

class Commands : public Board {
 protected:
  Commands() { start(); }
};

// [iommu §4.1.1]
TEST_F(Commands, IotinvalVmaMakesTheIommuReadTheTableAgain) {
  map(root_, 3, 0x1000, 0x90000);
  ASSERT_EQ(translate(0x1000)->address.value, 0x9000'0000U);
  const Command forms[] = {iotinval_vma(0x1000, kPscid), iotinval_vma(std::nullopt, kPscid),
                           iotinval_vma(0x1000, std::nullopt),
                           iotinval_vma(std::nullopt, std::nullopt)};
  std::uint64_t ppn = 0x90000;
  for (const Command& form : forms) {
    ASSERT_EQ(translate(0x1000)->address.value, ppn << kPageShift) << "cached";
    map(root_, 3, 0x1000, ++ppn);
    submit({form, iofence_c({})});
    ASSERT_TRUE(idle());
    EXPECT_EQ(translate(0x1000)->address.value, ppn << kPageShift);
  }
  EXPECT_EQ(iommu_->stats().invalidations, 4U);
}

// [iommu §4.1.1]
TEST_F(Commands, ReservedBitsOfIotinvalAreIllegal) {
  const Command vma = iotinval_vma(0x1000, kPscid);
  EXPECT_FALSE(illegal(vma));
  for (const unsigned bit : {11U, 34U, 35U, 43U, 60U, 63U})
    EXPECT_TRUE(illegal(vma, 0, bit)) << bit;
  // Bit 9 is S, bit 34 above NL: reserved without their capabilities.
  for (const unsigned bit : {0U, 8U, 9U, 62U, 63U}) EXPECT_TRUE(illegal(vma, 1, bit)) << bit;
  Command gvma{{Command::head(Command::OpcodeValue::kIotinval, Iotinval::kGvma), 0}};
  EXPECT_FALSE(illegal(gvma));
  gvma.words[0] |= Iotinval::Pscv::make(1);
  EXPECT_TRUE(illegal(gvma));
  EXPECT_TRUE(illegal(Command{{Command::head(Command::OpcodeValue::kIotinval, 2), 0}}));
}

// [iommu §4.1]
TEST_F(Commands, AnIllegalCommandStopsTheQueueUntilSoftwareClearsTheBit) {
  submit({iofence_c({}), Command{{5, 0}}, iofence_c({})});
  EXPECT_EQ(read(reg::kCqh), 1U) << "cqh references the illegal command";
  EXPECT_EQ(error_bits(), Cqcsr::CmdIll::kMask);
  EXPECT_EQ(interrupts(Interrupt::kCommandQueue), 1);
  EXPECT_EQ(read(reg::kIpsr), Ipsr::Cip::kMask);
  submit({iofence_c({})});
  EXPECT_EQ(read(reg::kCqh), 1U);
  store(command_ring_ + 16, iofence_c({}).words[0]);  // software repairs it
  clear_errors();
  EXPECT_TRUE(idle());
}

// [iommu §4.1]
TEST_F(Commands, UndefinedOpcodesAndCustomOnesAreIllegal) {
  for (std::uint64_t opcode = 0; opcode < 128; ++opcode) {
    if (opcode >= 1 && opcode <= 4) continue;
    EXPECT_TRUE(illegal(Command{{opcode, 0}})) << opcode;
  }
}

// [iommu §6.15]
TEST_F(Commands, AFetchFaultSetsCqmfAndStalls) {
  write(reg::kCqcsr, 0);
  write(reg::kCqb, QueueBase::make(kLog2Queue, kHolePpn), 8);
  write(reg::kCqcsr, Cqcsr::Cqen::kMask | Cqcsr::Cie::kMask);
  write(reg::kCqt, 1);
  EXPECT_EQ(error_bits(), Cqcsr::Cqmf::kMask);
  EXPECT_EQ(read(reg::kCqh), 0U);
  EXPECT_EQ(interrupts(Interrupt::kCommandQueue), 1);
}

// [iommu §4.1.2]
TEST_F(Commands, IofenceStoresItsData) {
  const std::uint64_t at = allocate_page() << kPageShift;
  submit({iofence_c({.address = at + 4, .data = 0xcafe'f00d})});
  EXPECT_TRUE(idle());
  EXPECT_EQ(load(at), 0xcafe'f00d'0000'0000U);
}

// [iommu §4.1.2]
TEST_F(Commands, AFenceThatCannotStoreReportsAMemoryFault) {
  submit({iofence_c({.address = kHolePpn << kPageShift, .data = 1})});
  EXPECT_EQ(read(reg::kCqh), 0U) << "cqh holds the index of the fence";
  EXPECT_EQ(error_bits(), Cqcsr::Cqmf::kMask);
}

/// A page of registers that takes 4-byte writes below `limit`, as an IMSIC's interrupt file does.
class InterruptFile : public memory::IoRegion {
 public:
  explicit InterruptFile(std::uint64_t limit) : limit_(limit) {}
  memory::Outcome read(std::uint64_t, std::span<std::byte>) override {
    return {0, memory::Fault::kRefused};
  }
  memory::Outcome write(std::uint64_t offset, std::span<const std::byte> from) override {
    std::uint32_t value = 0;
    if (from.size() != sizeof value || offset >= limit_) return {0, memory::Fault::kRefused};
    std::memcpy(&value, from.data(), sizeof value);
    writes.emplace_back(offset, value);
    return {sizeof value, memory::Fault::kNone};
  }
  std::vector<std::pair<std::uint64_t, std::uint32_t>> writes;

 private:
  std::uint64_t limit_;
};

// [iommu §4.1.2]
TEST_F(Commands, AFenceStoresToIoMemory) {
  constexpr std::uint64_t kFile = 0x2400'0000;
  const auto file = std::make_shared<InterruptFile>(8);
  ASSERT_TRUE(memory_.add_io(memory::PhysAddr{kFile}, kPageBytes, file).has_value());
  submit({iofence_c({.address = kFile + 4, .data = 0x1234'5678})});
  EXPECT_TRUE(idle());
  EXPECT_THAT(file->writes, ElementsAre(Pair(4, 0x1234'5678)));
  submit({iofence_c({.address = kFile + 8, .data = 1})});
  EXPECT_EQ(error_bits(), Cqcsr::Cqmf::kMask) << "refused there";
}

// [iommu §4.1.2]
TEST_F(Commands, AFenceSignalsTheWireWhenAsked) {
  submit({iofence_c({.interrupt = true})});
  EXPECT_TRUE(idle());
  EXPECT_NE(read(reg::kCqcsr) & Cqcsr::FenceWIp::kMask, 0U);
  EXPECT_EQ(interrupts(Interrupt::kCommandQueue), 1);
  submit({iofence_c({.interrupt = true})});
  EXPECT_TRUE(idle()) << "the bit does not stall the queue";
  EXPECT_EQ(interrupts(Interrupt::kCommandQueue), 1) << "still pending: no new edge";
  write(reg::kIpsr, Ipsr::Cip::kMask);
  EXPECT_EQ(interrupts(Interrupt::kCommandQueue), 2) << "the condition lasts";
  clear_errors();
  write(reg::kIpsr, Ipsr::Cip::kMask);
  EXPECT_EQ(read(reg::kIpsr), 0U);
  EXPECT_EQ(interrupts(Interrupt::kCommandQueue), 2);
}

// [iommu §4.1.2]
TEST_F(Commands, ReservedBitsOfIofenceAreIllegal) {
  for (const unsigned bit : {14U, 31U}) EXPECT_TRUE(illegal(iofence_c({}), 0, bit)) << bit;
  for (const unsigned bit : {62U, 63U}) EXPECT_TRUE(illegal(iofence_c({}), 1, bit)) << bit;
  for (const unsigned bit : {7U, 8U, 9U}) EXPECT_TRUE(illegal(iofence_c({}), 0, bit)) << "func3";
}

// [iommu §4.1.2] [iommu §4.1.3]
TEST_F(Commands, AFenceWaitsForAccessesThroughOldTranslations) {
  map(root_, 3, 0x1000, 0x90000);
  const Command plain = iofence_c({});
  const std::pair<Command, Command> cases[] = {
      {iotinval_vma(0x1000, kPscid), plain},
      {iodir_inval_ddt(kDevice.value), plain},
      {iodir_inval_pdt(kDevice.value, kPasid.value), plain},
      {plain, iofence_c({.order_reads = true})},
      {plain, iofence_c({.order_writes = true})}};
  for (const auto& pair : cases) {
    const Command& command = pair.first;
    const Command& waiting = pair.second;
    SCOPED_TRACE(command.words[0]);
    const auto first = static_cast<std::uint32_t>(read(reg::kCqt));
    std::atomic<bool> inside{false};
    std::atomic<bool> leave{false};
    std::atomic<bool> left{false};
    std::thread access([&] {
      const std::scoped_lock section(rcu::rcu_default_domain());
      EXPECT_TRUE(translate(0x1000).has_value());
      inside = true;
      while (!leave) std::this_thread::yield();
      left = true;
    });
    while (!inside) std::this_thread::yield();
    std::atomic<bool> left_before_completion{false};
    std::thread driver([&] {
      submit({command, waiting});
      left_before_completion = left.load();
    });
    while (read(reg::kCqh) == first) std::this_thread::yield();  // the first command is done
    // A fence that does not wait has ample time to complete; one that does cannot.
    for (int i = 0; i < 1000 && !idle(); ++i) std::this_thread::yield();
    EXPECT_FALSE(idle());
    leave = true;
    driver.join();
    access.join();
    EXPECT_TRUE(left_before_completion);
    EXPECT_TRUE(idle());
  }
}

// [iommu §4.1.2]
TEST_F(Commands, AFenceThatOrdersNothingWaitsForNoAccess) {
  const std::scoped_lock section(rcu::rcu_default_domain());
  fence();
  EXPECT_TRUE(idle());
}

// [iommu §4.1.3]
TEST_F(Commands, IodirInvalDdtMakesTheIommuReadTheContextAgain) {
  map(root_, 3, 0x1000, 0x90000);
  for (const Command& form : {iodir_inval_ddt(kDevice.value), iodir_inval_ddt(std::nullopt)}) {
    set_device(kDevice, context_);
    ASSERT_TRUE(translate(0x1000).has_value());
    store(device_slot(kDevice), 0);
    submit({form, iofence_c({})});
    EXPECT_EQ(cause_of(translate(0x1000)), Cause::kDdtNotValid);
  }
}

// [iommu §4.1.3]
TEST_F(Commands, IodirInvalPdtMakesTheIommuReadTheProcessContextAgain) {
  map(root_, 3, 0x1000, 0x90000);
  ASSERT_TRUE(translate(0x1000).has_value());
  set_process(PdtpMode::kPd8, pdt_root_, kPasid, {});
  submit({iodir_inval_pdt(kDevice.value, kPasid.value), iofence_c({})});
  EXPECT_EQ(cause_of(translate(0x1000)), Cause::kPdtNotValid);
}

// [iommu §4.1.3]
TEST_F(Commands, IllegalIodirFormsAreRefused) {
  EXPECT_TRUE(illegal(iodir_inval_ddt(0x80))) << "wider than 1LVL";
  EXPECT_TRUE(illegal(iodir_inval_pdt(0x80, 1)));
  EXPECT_TRUE(illegal(iodir_inval_ddt(1), 0, 12)) << "PID is reserved";
  Command no_device = iodir_inval_pdt(0, 1);
  no_device.words[0] &= ~Iodir::Dv::kMask;
  EXPECT_TRUE(illegal(no_device));
  for (const unsigned bit : {8U, 9U, 10U, 11U, 32U, 34U, 39U}) {
    EXPECT_TRUE(illegal(iodir_inval_ddt(1), 0, bit)) << bit;
  }
  for (unsigned bit = 0; bit < 64; ++bit) EXPECT_TRUE(illegal(iodir_inval_ddt(1), 1, bit)) << bit;
}

// [iommu §6.15]
TEST_F(Commands, EnablingTheQueueResetsItsHeadAndErrors) {
  submit({iofence_c({}), Command{{5, 0}}});
  ASSERT_NE(error_bits(), 0U);
  write(reg::kCqcsr, 0);
  EXPECT_EQ(read(reg::kCqcsr) & Cqcsr::Cqon::kMask, 0U);
  write(reg::kCqt, 0);
  write(reg::kCqcsr, Cqcsr::Cqen::kMask);
  EXPECT_EQ(read(reg::kCqcsr), Cqcsr::Cqen::kMask | Cqcsr::Cqon::kMask);
  EXPECT_EQ(read(reg::kCqh), 0U);
}

/// A page of registers that takes its time over each write.
class SlowFile : public memory::IoRegion {
 public:
  memory::Outcome read(std::uint64_t, std::span<std::byte>) override {
    return {0, memory::Fault::kRefused};
  }
  memory::Outcome write(std::uint64_t, std::span<const std::byte> from) override {
    ++writes;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return {from.size(), memory::Fault::kNone};
  }
  std::atomic<unsigned> writes{0};
};

// [iommu §6.15]
TEST_F(Commands, WhoTurnsTheQueueOffWaitsForTheCommandUnderWayAlone) {
  constexpr std::uint64_t kFile = 0x2400'0000;
  constexpr unsigned kLog2Entries = 14;  // a quarter of a minute, were all of them waited for
  constexpr unsigned kFences = (1U << kLog2Entries) - 1;
  const auto file = std::make_shared<SlowFile>();
  ASSERT_TRUE(memory_.add_io(memory::PhysAddr{kFile}, kPageBytes, file).has_value());
  write(reg::kCqcsr, 0);
  const std::uint64_t ring = allocate_pages_aligned(sizeof(Command) << kLog2Entries);
  const Command slow = iofence_c({.address = kFile, .data = 1});
  for (unsigned i = 0; i < kFences; ++i) {
    store((ring << kPageShift) + i * sizeof(Command), slow.words[0]);
    store((ring << kPageShift) + i * sizeof(Command) + 8, slow.words[1]);
  }
  write(reg::kCqb, QueueBase::make(kLog2Entries, ring), 8);
  write(reg::kCqcsr, Cqcsr::Cqen::kMask);
  std::jthread software([&] { write(reg::kCqt, kFences); });
  while (file->writes == 0) std::this_thread::yield();
  write(reg::kCqcsr, 0);
  const unsigned done = file->writes;
  EXPECT_LT(done, kFences) << "all of them came first";
  EXPECT_EQ(read(reg::kCqh), done);
  EXPECT_EQ(read(reg::kCqcsr) & Cqcsr::Cqon::kMask, 0U);
  software.join();
  EXPECT_EQ(file->writes, done) << "none after that";
}

// [iommu §6.6]
TEST_F(Commands, TheQueueWrapsAround) {
  for (int i = 0; i < 50; ++i) {
    fence();
    ASSERT_TRUE(idle());
  }
  EXPECT_EQ(read(reg::kCqh), 50U % (1U << kLog2Queue));
  write(reg::kCqt, 0xffff'fff0U | read(reg::kCqh));
  EXPECT_EQ(read(reg::kCqt), read(reg::kCqh)) << "only LOG2SZ bits are writable";
}

}  // namespace
}  // namespace tandem::iommu::detail
