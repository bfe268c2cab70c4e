// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/interrupts.hpp"

#include <gtest/gtest.h>

#include <barrier>
#include <cstring>
#include <functional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/base/cpu.hpp"
#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

using Interrupt = Iommu::Interrupt;
using Stores = std::vector<std::pair<std::uint64_t, std::uint32_t>>;

constexpr std::uint64_t with_igs(std::uint64_t capabilities, std::uint64_t igs) {
  return Capabilities::Igs::set(capabilities, igs);
}

/// An interrupt controller: remembers what is stored to it.
class Controller : public memory::IoRegion {
 public:
  memory::Outcome read(std::uint64_t, std::span<std::byte>) override {
    return {0, memory::Fault::kRefused};
  }
  memory::Outcome write(std::uint64_t offset, std::span<const std::byte> from) override {
    std::uint32_t data = 0;
    if (from.size() != sizeof data) return {0, memory::Fault::kRefused};
    std::memcpy(&data, from.data(), sizeof data);
    const MutexLock lock(mutex_);
    stores_.emplace_back(offset, data);
    return {sizeof data, memory::Fault::kNone};
  }
  Stores take() {
    const MutexLock lock(mutex_);
    return std::exchange(stores_, {});
  }

 private:
  Mutex mutex_;
  Stores stores_ TANDEM_GUARDED_BY(mutex_);
};

/// An IOMMU whose interrupts are messages: the causes have vectors 1 to 4, their messages go to the
/// controller, 4 bytes apart, with the vector's number and 0x100 as data.
class Messages : public Board {
 protected:
  static constexpr std::uint64_t kController = 0x2400'0000;

  explicit Messages(const Iommu::Options& options = {.capabilities = with_igs(
                                                         kHostCapabilities, Capabilities::kIgsMsi)})
      : Board(options) {
    EXPECT_TRUE(memory_.add_io(memory::PhysAddr{kController}, kPageBytes, controller_).has_value());
    for (unsigned vector = 0; vector < reg::kMsiEntries; ++vector) {
      set_message(vector, kController + vector * 4, 0x100 + vector);
    }
    write(reg::kIcvec,
          Icvec::Civ::make(1) | Icvec::Fiv::make(2) | Icvec::Pmiv::make(3) | Icvec::Piv::make(4));
  }
  void set_message(unsigned vector, std::uint64_t address, std::uint32_t data) {
    write(reg::kMsiAddress + vector * reg::kMsiEntryBytes, address, 8);
    write(reg::kMsiData + vector * reg::kMsiEntryBytes, data);
  }
  void mask(unsigned vector, bool on) {
    write(reg::kMsiControl + vector * reg::kMsiEntryBytes, MsiConfig::M::make(on));
  }
  static Stores stores(std::initializer_list<unsigned> vectors) {
    Stores stores;
    for (const unsigned vector : vectors) stores.emplace_back(vector * 4, 0x100 + vector);
    return stores;
  }
  void make_fault() { EXPECT_FALSE(translate(0xdead'b000).has_value()); }

  std::shared_ptr<Controller> controller_ = std::make_shared<Controller>();
};

// [iommu §6.18] [iommu §6.28] [iommu §6.29]
TEST_F(Messages, AnEdgeSendsTheMessageOfItsVector) {
  start();
  make_fault();
  EXPECT_EQ(controller_->take(), stores({2}));
  submit({Command{}});
  EXPECT_EQ(controller_->take(), stores({1}));
  port_->page_request({.address = Iova{0x1000}, .pasid = kPasid, .read = true});
  EXPECT_EQ(controller_->take(), stores({4}));
  make_fault();
  EXPECT_TRUE(controller_->take().empty()) << "no edge";
  write(reg::kIpsr, Ipsr::Fip::kMask);
  make_fault();
  EXPECT_EQ(controller_->take(), stores({2}));
  EXPECT_EQ(interrupts(Interrupt::kFaultQueue), 2) << "the handler of edges is called, too";
}

// [iommu §6.18]
TEST_F(Messages, AConditionThatLastsSendsAgain) {
  start();
  submit({Command{}});
  EXPECT_EQ(controller_->take(), stores({1}));
  write(reg::kIpsr, Ipsr::Cip::kMask);
  EXPECT_EQ(controller_->take(), stores({1}));
  write(reg::kCqcsr, Cqcsr::Cqen::make(1) | Cqcsr::Cie::make(1) | Cqcsr::CmdIll::make(1));
}

// [iommu §6.28]
TEST_F(Messages, TwoCausesMayShareAVector) {
  start();
  write(reg::kIcvec, Icvec::Civ::make(7) | Icvec::Fiv::make(7));
  make_fault();
  submit({Command{}});
  EXPECT_EQ(controller_->take(), stores({7, 7}));
}

// [iommu §6.29]
TEST_F(Messages, AMaskedVectorsMessageIsSentWhenItIsUnmasked) {
  start();
  mask(2, true);
  make_fault();
  write(reg::kIpsr, Ipsr::Fip::kMask);
  make_fault();
  EXPECT_TRUE(controller_->take().empty());
  set_message(2, kController + 40, 0x777);
  mask(2, true);
  mask(3, false);
  EXPECT_TRUE(controller_->take().empty());
  mask(2, false);
  EXPECT_EQ(controller_->take(), (Stores{{40, 0x777}})) << "once, as the entry says now";
  mask(2, true);
  mask(2, false);
  EXPECT_TRUE(controller_->take().empty());
}

// [iommu §6.29] [iommu §4.2]
TEST_F(Messages, OneThatReachesNothingIsReported) {
  start();
  set_message(1, (kHolePpn << kPageShift) + 8, 1);
  submit({Command{}});
  EXPECT_EQ(controller_->take(), stores({2})) << "the record's own";
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].cause(), Cause::kIommuMsiWriteFault);
  EXPECT_EQ(faults[0].type(), TransactionType::kNone);
  EXPECT_EQ(faults[0].device_id(), 0U);
  EXPECT_EQ(faults[0].process_id(), std::nullopt);
  EXPECT_EQ(faults[0].iotval, (kHolePpn << kPageShift) + 8);
}

// [iommu §6.29] [iommu §4.2]
TEST_F(Messages, TheFaultQueuesOwnThatReachesNothingIsReportedOnce) {
  start();
  set_message(2, kHolePpn << kPageShift, 1);
  make_fault();
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 2U);
  EXPECT_EQ(faults[0].cause(), Cause::kReadPageFault);
  EXPECT_EQ(faults[1].cause(), Cause::kIommuMsiWriteFault);
}

// [iommu §6.18] [iommu §6.29]
TEST_F(Messages, OneThatClearsItsBitIsSentAgainAfterItAndNotInsideIt) {
  /// What a message reaches clears the bit that it tells of, as a processor at once would.
  struct Hasty final : memory::IoRegion {
    memory::Outcome read(std::uint64_t, std::span<std::byte>) override {
      return {0, memory::Fault::kRefused};
    }
    memory::Outcome write(std::uint64_t, std::span<const std::byte> from) override {
      EXPECT_EQ(++depth, 1);
      EXPECT_TRUE(iommu->is_storing());
      if (++messages < 1000) iommu->mmio_write(reg::kIpsr, Ipsr::Fip::kMask, 4);
      --depth;
      return {from.size(), memory::Fault::kNone};
    }
    Iommu* iommu = nullptr;
    int depth = 0;
    int messages = 0;
  };
  const auto hasty = std::make_shared<Hasty>();
  hasty->iommu = iommu_.get();
  ASSERT_TRUE(memory_.add_io(memory::PhysAddr{0x2500'0000}, kPageBytes, hasty).has_value());
  start();
  for (unsigned i = 0; i < 1U << kLog2Queue; ++i) make_fault();
  ASSERT_EQ(Fqcsr::Fqof::get(read(reg::kFqcsr)), 1U) << "lasts until software clears it";
  set_message(2, 0x2500'0000, 1);
  write(reg::kIpsr, Ipsr::Fip::kMask);
  EXPECT_EQ(hasty->messages, 1000);
  EXPECT_FALSE(iommu_->is_storing());
}

// [iommu §6.29]
TEST_F(Messages, TheTableKeepsItsFields) {
  for (unsigned vector = 0; vector < reg::kMsiEntries; ++vector) {
    const std::uint32_t at = reg::kMsiAddress + vector * reg::kMsiEntryBytes;
    write(at, ~std::uint64_t{0}, 8);
    EXPECT_EQ(read(at, 8), 0x00ff'ffff'ffff'fffcU);
    write(at + 4, 0x12);
    EXPECT_EQ(read(at, 8), 0x12'ffff'fffcU);
    write(at + 8, 0xffff'ffff'ffff'fffe, 8);
    EXPECT_EQ(read(at + 8, 8), 0x1'ffff'fffeU);
  }
}

// [iommu §4.1.2]
TEST_F(Messages, AFenceCannotDriveAWire) {
  start();
  submit({iofence_c({.interrupt = true})});
  EXPECT_EQ(read(reg::kCqcsr) & (Cqcsr::CmdIll::kMask | Cqcsr::FenceWIp::kMask),
            Cqcsr::CmdIll::kMask);
}

// [iommu §6.29]
TEST_F(Messages, NoneIsLostBetweenMaskingAndUnmasking) {
  constexpr int kRounds = 3000;
  start();
  std::barrier together(2);
  std::atomic<bool> stop{false};
  std::jthread unmasker([&] {
    for (int round = 0;; ++round) {
      together.arrive_and_wait();
      if (stop) return;
      while (read(reg::kIpsr) == 0) cpu_pause();
      for (int i = 0; i < round % 64; ++i) cpu_pause();
      mask(2, false);
      together.arrive_and_wait();
    }
  });
  for (int round = 0; round < kRounds && !HasFailure(); ++round) {
    mask(2, true);
    together.arrive_and_wait();
    make_fault();
    together.arrive_and_wait();
    EXPECT_EQ(controller_->take(), stores({2})) << round;
    EXPECT_EQ(take_faults().size(), 1U);
    write(reg::kIpsr, Ipsr::Fip::kMask);
  }
  stop = true;
  together.arrive_and_wait();
}

class TwoVectors : public Messages {
 protected:
  TwoVectors()
      : Messages({.capabilities = with_igs(kHostCapabilities & ~Capabilities::Ats::kMask,
                                           Capabilities::kIgsMsi),
                  .vector_bits = 1}) {}
};

// [iommu §6.28] [iommu §6.29]
TEST_F(TwoVectors, OnlyWhatExistsCanBeWritten) {
  write(reg::kIcvec, ~std::uint64_t{0}, 8);
  EXPECT_EQ(read(reg::kIcvec, 8), Icvec::Civ::make(1) | Icvec::Fiv::make(1))
      << "no page-request queue, no performance monitor";
  for (std::uint32_t at = reg::kMsiAddress + 32; at < reg::kReservedFrom; at += 4) {
    write(at, 0xffff'ffff);
    EXPECT_EQ(read(at), 0U) << at;
  }
}

/// An IOMMU whose interrupts are wires, by the choice of fctl where both ways exist.
class Wires : public Board {
 protected:
  using Levels = std::vector<std::pair<unsigned, bool>>;

  Wires()
      : Board(Iommu::Options{.capabilities = with_igs(kHostCapabilities, Capabilities::kIgsBoth)}) {
    write(reg::kIcvec, Icvec::Civ::make(1) | Icvec::Fiv::make(2) | Icvec::Piv::make(4));
    iommu_->on_wire([this](unsigned vector, bool level) { told_.emplace_back(vector, level); });
  }
  Levels take() { return std::exchange(told_, {}); }
  void make_fault() { EXPECT_FALSE(translate(0xdead'b000).has_value()); }

  Levels told_;
};

// [iommu §6.18]
TEST_F(Wires, ALevelFallsWhenSoftwareClearsThePendingBit) {
  start();
  make_fault();
  make_fault();
  EXPECT_EQ(take(), (Levels{{2, true}}));
  write(reg::kIpsr, Ipsr::Fip::kMask);
  EXPECT_EQ(take(), (Levels{{2, false}}));
  submit({Command{}});
  EXPECT_EQ(take(), (Levels{{1, true}}));
  write(reg::kIpsr, Ipsr::Cip::kMask);
  EXPECT_TRUE(take().empty()) << "the condition lasts";
  write(reg::kCqcsr, Cqcsr::Cqen::make(1) | Cqcsr::CmdIll::make(1));
  EXPECT_TRUE(take().empty());
  write(reg::kIpsr, Ipsr::Cip::kMask);
  EXPECT_EQ(take(), (Levels{{1, false}}));
}

// [iommu §6.28]
TEST_F(Wires, ASharedWireIsHighWhileACauseIsPending) {
  start();
  write(reg::kIcvec, Icvec::Civ::make(3) | Icvec::Fiv::make(3));
  make_fault();
  submit({iofence_c({.interrupt = true})});
  EXPECT_EQ(take(), (Levels{{3, true}}));
  write(reg::kIpsr, Ipsr::Fip::kMask);
  EXPECT_TRUE(take().empty());
  write(reg::kIcvec, Icvec::Civ::make(5));
  EXPECT_EQ(take(), (Levels{{3, false}, {5, true}}));
  write(reg::kCqcsr, Cqcsr::Cqen::make(1) | Cqcsr::Cie::make(1) | Cqcsr::FenceWIp::make(1));
  write(reg::kIpsr, Ipsr::Cip::kMask);
  EXPECT_EQ(take(), (Levels{{5, false}}));
}

// [iommu §6.18]
TEST_F(Wires, AHandlerMayClearThePendingBit) {
  start();
  iommu_->on_wire([this](unsigned vector, bool level) {
    told_.emplace_back(vector, level);
    if (level) write(reg::kIpsr, Ipsr::Fip::kMask);
    told_.emplace_back(99, level);
  });
  make_fault();
  EXPECT_EQ(take(), (Levels{{2, true}, {99, true}, {2, false}, {99, false}}));
}

// [iommu §6.18]
TEST_F(Wires, TheCommandQueuesPendingBitMayBeClearedWhileACommandRuns) {
  struct Clearing final : DeviceCallbacks {
    explicit Clearing(std::function<void()> clear) : clear_(std::move(clear)) {}
    void page_response(const PageResponse&) override { clear_(); }
    std::function<void()> clear_;
  };
  start();
  submit({iofence_c({.interrupt = true})});
  EXPECT_EQ(take(), (Levels{{1, true}}));
  Clearing device([this] {
    write(reg::kIpsr, Ipsr::Cip::kMask);
    EXPECT_EQ(read(reg::kIpsr), Ipsr::Cip::kMask) << "its condition lasts";
  });
  const auto port = iommu_->attach({kDevice.value + 1}, device);
  submit({ats_prgr(kDevice.value + 1, std::nullopt, 0, 0)});
  EXPECT_TRUE(idle());
}

// [iommu §6.18]
TEST_F(Wires, AHandlerConnectedLateLearnsTheLevels) {
  start();
  make_fault();
  take();
  iommu_->on_wire({});
  iommu_->on_wire([this](unsigned vector, bool level) { told_.emplace_back(vector, level); });
  EXPECT_EQ(take(), (Levels{{2, true}}));
}

// [iommu §6.4]
TEST_F(Wires, MessagesCanBeChosenWhileEverythingIsOff) {
  EXPECT_EQ(read(reg::kFctl), Fctl::Wsi::kMask);
  start();
  write(reg::kFctl, 0);
  EXPECT_EQ(read(reg::kFctl), Fctl::Wsi::kMask) << "UNSPECIFIED: ignored";
  make_fault();
  write(reg::kFqcsr, 0);
  write(reg::kCqcsr, 0);
  write(reg::kPqcsr, 0);
  write(reg::kFctl, 0);
  EXPECT_EQ(read(reg::kFctl), Fctl::Wsi::kMask);
  write(reg::kDdtp, 0, 8);
  take();
  write(reg::kFctl, ~Fctl::Wsi::kMask);
  EXPECT_EQ(read(reg::kFctl), 0U);
  EXPECT_EQ(take(), (Levels{{2, false}})) << "nothing drives the wire";
  write(reg::kFctl, 0xffff'ffff);
  EXPECT_EQ(read(reg::kFctl), Fctl::Wsi::kMask);
}

// [iommu §6.18] [iommu §6.29]
TEST_F(Wires, NoMessageThatWasPendingIsSentWhereWiresSignal) {
  const std::uint64_t target = allocate_page() << kPageShift;
  const auto all_off = [&](std::uint64_t fctl) {
    for (const std::uint32_t csr : {reg::kCqcsr, reg::kFqcsr, reg::kPqcsr}) write(csr, 0);
    write(reg::kDdtp, 0, 8);
    write(reg::kFctl, fctl);
  };
  constexpr std::uint32_t kEntry = reg::kMsiEntryBytes * 2;
  all_off(0);
  write(reg::kMsiAddress + kEntry, target, 8);
  write(reg::kMsiData + kEntry, 0x777);
  write(reg::kMsiControl + kEntry, 1);
  write(reg::kIcvec, Icvec::Fiv::make(2));
  start();
  make_fault();
  all_off(Fctl::Wsi::kMask);
  write(reg::kMsiControl + kEntry, 0);
  EXPECT_EQ(load(target), 0U);
  all_off(0);
  write(reg::kMsiControl + kEntry, 0);
  EXPECT_EQ(load(target), 0x777U) << "it was pending";
}

// [iommu §6.18]
TEST_F(Wires, TheLastLevelToldIsTheLevel) {
  constexpr int kRounds = 300;
  start();
  std::array<std::atomic<bool>, reg::kMsiEntries> levels{};
  iommu_->on_wire([&](unsigned vector, bool level) { levels[vector] = level; });
  std::barrier together(3);
  std::atomic<bool> stop{false};
  const auto repeat = [&](auto action) {
    return std::jthread([&, action] {
      while (true) {
        together.arrive_and_wait();
        if (stop) return;
        for (int i = 0; i < 20; ++i) action();
        together.arrive_and_wait();
      }
    });
  };
  const auto raiser = repeat([&] { make_fault(); });
  const auto clearer = repeat([&] { write(reg::kIpsr, Ipsr::Fip::kMask); });
  for (int round = 0; round < kRounds && !HasFailure(); ++round) {
    together.arrive_and_wait();
    for (int i = 0; i < 20; ++i) write(reg::kIcvec, Icvec::Fiv::make(static_cast<unsigned>(i) % 4));
    together.arrive_and_wait();
    for (unsigned vector = 0; vector < 4; ++vector) {
      const bool high = read(reg::kIpsr) != 0 && Icvec::Fiv::get(read(reg::kIcvec)) == vector;
      EXPECT_EQ(levels[vector], high) << vector;
    }
    write(reg::kFqcsr, Fqcsr::Fqen::make(1) | Fqcsr::Fie::make(1) | Fqcsr::Fqof::make(1));
    take_faults();
  }
  stop = true;
  together.arrive_and_wait();
}

/// IGS = WSI: what only messages have is not there.
class OnlyWires : public Board {};

// [iommu §6.29]
TEST_F(OnlyWires, ThereIsNoTable) {
  for (std::uint32_t at = reg::kMsiAddress; at < reg::kReservedFrom; at += 4) {
    write(at, 0xffff'ffff);
    EXPECT_EQ(read(at), 0U) << at;
  }
  write(reg::kFctl, 0);
  EXPECT_EQ(read(reg::kFctl), Fctl::Wsi::kMask);
}

}  // namespace
}  // namespace tandem::iommu::detail
