// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/performance_monitor.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

using Interrupt = Iommu::Interrupt;

class Monitor : public Board {
 protected:
  explicit Monitor(const Iommu::Options& options = {.capabilities = kAllCapabilities})
      : Board(options) {}

  static std::uint64_t selects(HpmEvent event, std::uint64_t filter = 0) {
    return Iohpmevt::EventId::make(static_cast<std::uint64_t>(event)) | filter;
  }
  /// Registers of iohpmctr `n` and iohpmevt `n`, counted from 1 as in their names.
  static std::uint32_t counter(unsigned n) { return reg::kIohpmctr1 + (n - 1) * 8; }
  static std::uint32_t selector(unsigned n) { return reg::kIohpmevt1 + (n - 1) * 8; }
  std::uint64_t count(unsigned n) { return read(counter(n), 8); }
  void request(std::uint64_t iova) { static_cast<void>(translate(iova)); }
};

// [iommu §6.23]
TEST_F(Monitor, EachKindOfRequestHasItsEvent) {
  start();
  map(root_, 3, 0x7000, 0x12345);
  for (unsigned n = 1; n <= 3; ++n) write(selector(n), selects(static_cast<HpmEvent>(n)), 8);
  request(0x7000);
  request(0x7000);
  request(0x9000);
  EXPECT_EQ(count(1), 3U) << "hits and faults, too";
  EXPECT_TRUE(port_->translated({kPasid, false}, PhysAddr{0x7000}, Access::kRead).has_value());
  EXPECT_TRUE(port_->translated({kPasid, false}, PhysAddr{0x7000}, Access::kRead).has_value());
  static_cast<void>(port_->ats_translate({kPasid, false}, Iova{0x7000}, true));
  EXPECT_EQ(count(1), 3U);
  EXPECT_EQ(count(2), 2U);
  EXPECT_EQ(count(3), 1U);
}

struct FilterCase {
  const char* name;
  std::uint64_t filter;
  bool counted;
};

class Filters : public Monitor, public ::testing::WithParamInterface<FilterCase> {};

constexpr std::uint32_t kGuest = 0x1234;
constexpr std::uint32_t kDeviceId = 0x22;
constexpr std::uint32_t kProcess = 5;
constexpr std::uint32_t kSpace = 77;
constexpr std::uint64_t kPv = Iohpmevt::PvPscv::make(1);
constexpr std::uint64_t kDv = Iohpmevt::DvGscv::make(1);
constexpr std::uint64_t kByDevice = 0;
constexpr std::uint64_t kBySpace = Iohpmevt::Idt::make(1);
constexpr std::uint64_t kPartial = Iohpmevt::Dmask::make(1);
constexpr std::uint64_t id(std::uint32_t value) { return Iohpmevt::DidGscid::make(value); }
constexpr std::uint64_t process(std::uint32_t value) { return Iohpmevt::PidPscid::make(value); }

/// [iommu §6.23] table "filtering options": the monitor by itself, for a TLB miss of process 5 of
/// device 0x22 in space 77 of guest 0x1234.
TEST_P(Filters, SelectByIds) {
  const Config config(Iommu::Options{.capabilities = kAllCapabilities});
  Interrupts interrupts(config);
  PerformanceMonitor monitor(config, interrupts);
  monitor.write_selector(0, selects(HpmEvent::kTlbMiss, GetParam().filter), ~std::uint64_t{0});
  ASSERT_TRUE(monitor.counts(HpmEvent::kTlbMiss));
  const EventIds ids{DeviceId{kDeviceId}, Pasid{kProcess}, kGuest, kSpace};
  EXPECT_FALSE(monitor.count(HpmEvent::kTlbMiss, ids));
  EXPECT_EQ(monitor.counter(0), GetParam().counted ? 1U : 0U);
}

INSTANTIATE_TEST_SUITE_P(
    Table, Filters,
    ::testing::Values(
        FilterCase{"none", kByDevice | id(1) | process(1), true},
        FilterCase{"none_by_space", kBySpace | id(1) | process(1), true},
        FilterCase{"process", kPv | process(kProcess), true},
        FilterCase{"other_process", kPv | process(kSpace), false},
        FilterCase{"device", kDv | id(kDeviceId), true},
        FilterCase{"other_device", kDv | id(kGuest), false},
        FilterCase{"both", kDv | kPv | id(kDeviceId) | process(kProcess), true},
        FilterCase{"both_but_process", kDv | kPv | id(kDeviceId) | process(6), false},
        FilterCase{"both_but_device", kDv | kPv | id(0x23) | process(kProcess), false},
        FilterCase{"space", kBySpace | kPv | process(kSpace), true},
        FilterCase{"other_space", kBySpace | kPv | process(kProcess), false},
        FilterCase{"guest", kBySpace | kDv | id(kGuest), true},
        FilterCase{"other_guest", kBySpace | kDv | id(kDeviceId), false},
        FilterCase{"space_of_guest", kBySpace | kDv | kPv | id(kGuest) | process(kSpace), true},
        FilterCase{"function", kDv | kPartial | id(0x23), true},
        FilterCase{"other_slot", kDv | kPartial | id(0x2b), false},
        FilterCase{"lowest_bit", kDv | kPartial | id(0x22), true},
        FilterCase{"lowest_bit_of_another", kDv | kPartial | id(0x20), false},
        FilterCase{"bus", kDv | kPartial | id(0x7f), true},
        FilterCase{"other_bus", kDv | kPartial | id(0x17f), false},
        FilterCase{"any_device", kDv | kPartial | id(0xff'ffff), true},
        FilterCase{"guests", kBySpace | kDv | kPartial | id(0x1237), true},
        FilterCase{"other_guests", kBySpace | kDv | kPartial | id(0x1217), false}),
    [](const auto& filter) { return std::string(filter.param.name); });

// [iommu §6.23]
TEST_F(Monitor, AnIdThatATransactionHasNotMatchesNothing) {
  const Config config(Iommu::Options{.capabilities = kAllCapabilities});
  Interrupts interrupts(config);
  PerformanceMonitor monitor(config, interrupts);
  const std::uint64_t all = ~std::uint64_t{0};
  monitor.write_selector(0, selects(HpmEvent::kTlbMiss, kPv), all);
  monitor.write_selector(1, selects(HpmEvent::kTlbMiss, kBySpace | kPv), all);
  monitor.write_selector(2, selects(HpmEvent::kTlbMiss, kBySpace | kDv), all);
  monitor.write_selector(3, selects(HpmEvent::kTlbMiss), all);
  EXPECT_FALSE(monitor.count(HpmEvent::kTlbMiss, {}));
  for (unsigned i = 0; i < 3; ++i) EXPECT_EQ(monitor.counter(i), 0U) << i;
  EXPECT_EQ(monitor.counter(3), 1U);
}

// [iommu §6.23] table "Standard Events list"
TEST_F(Monitor, OnlySomeEventsCanBeFilteredBySpace) {
  const Config config(Iommu::Options{.capabilities = kAllCapabilities});
  Interrupts interrupts(config);
  PerformanceMonitor monitor(config, interrupts);
  for (unsigned event = 1; event <= 8; ++event) {
    const auto which = static_cast<HpmEvent>(event);
    monitor.write_selector(event, selects(which, kBySpace), ~std::uint64_t{0});
    EXPECT_FALSE(monitor.count(which, {}));
    EXPECT_EQ(monitor.counter(event), event == 4 || event >= 7 ? 1U : 0U) << event;
  }
}

// [iommu §6.20]
TEST_F(Monitor, AnInhibitedCounterStands) {
  start();
  for (unsigned n : {1U, 2U}) write(selector(n), selects(HpmEvent::kUntranslatedRequest), 8);
  write(reg::kIocountinh, 1U << 2);
  request(0x1000);
  EXPECT_EQ(count(1), 1U);
  EXPECT_EQ(count(2), 0U);
  write(reg::kIocountinh, 1U << 1);
  request(0x1000);
  EXPECT_EQ(count(1), 1U);
  EXPECT_EQ(count(2), 1U);
}

// [iommu §6.22] [iommu §6.23]
TEST_F(Monitor, SelectorsAndCountersKeepWhatIsWritten) {
  write(selector(31), ~Iohpmevt::EventId::kMask | 8, 8);
  EXPECT_EQ(read(selector(31), 8), ~Iohpmevt::EventId::kMask | 8);
  write(selector(31), 0, 8);
  write(counter(31), 0x1234'5678'9abc'def0, 8);
  write(counter(31) + 4, 0x55);
  EXPECT_EQ(count(31), 0x55'9abc'def0U);
  write(selector(31), selects(HpmEvent::kTlbMiss), 8);
  EXPECT_EQ(count(31), 0x55'9abc'def0U) << "kept when the event changes";
  write(selector(31), 9);
  EXPECT_EQ(read(selector(31)), 4U) << "an event that does not exist is not selected";
}

// [iommu §6.19] [iommu §6.23]
TEST_F(Monitor, AnOverflowInterruptsUnlessOfIsSet) {
  start();
  write(selector(3), selects(HpmEvent::kUntranslatedRequest), 8);
  write(counter(3), ~std::uint64_t{0}, 8);
  EXPECT_EQ(read(reg::kIocountovf), 0U);
  request(0x1000);
  EXPECT_EQ(count(3), 0U);
  EXPECT_EQ(read(reg::kIocountovf), 1U << 3);
  EXPECT_EQ(read(selector(3), 8), selects(HpmEvent::kUntranslatedRequest) | Iohpmevt::Of::kMask);
  EXPECT_EQ(read(reg::kIpsr) & Ipsr::Pmip::kMask, Ipsr::Pmip::kMask);
  EXPECT_EQ(interrupts(Interrupt::kPmu), 1);
  write(reg::kIpsr, Ipsr::Pmip::kMask);
  EXPECT_EQ(read(reg::kIpsr) & Ipsr::Pmip::kMask, 0U);
  write(counter(3), ~std::uint64_t{0}, 8);
  request(0x1000);
  EXPECT_EQ(interrupts(Interrupt::kPmu), 1) << "OF was set";
  write(selector(3) + 4, 0);
  write(counter(3), ~std::uint64_t{0}, 8);
  request(0x1000);
  EXPECT_EQ(interrupts(Interrupt::kPmu), 2);
}

// [iommu §6.23]
TEST_F(Monitor, OfManyThreadsOneOverflows) {
  constexpr unsigned kThreads = 8;
  constexpr unsigned kEach = 500;
  constexpr int kRounds = 20;
  start();
  map(root_, 3, 0x7000, 0x12345);
  EXPECT_TRUE(translate(0x7000).has_value());
  for (int round = 0; round < kRounds; ++round) {
    write(counter(1), std::uint64_t{0} - kThreads * kEach / 2, 8);
    write(selector(1), selects(HpmEvent::kUntranslatedRequest), 8);
    std::vector<std::jthread> threads;
    for (unsigned t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        for (unsigned i = 0; i < kEach; ++i) request(0x7000);
      });
    }
    threads.clear();
    EXPECT_EQ(count(1), kThreads * kEach / 2) << "exactly";
    EXPECT_EQ(read(reg::kIocountovf), 1U << 1);
    EXPECT_EQ(interrupts(Interrupt::kPmu), round + 1);
    write(reg::kIpsr, Ipsr::Pmip::kMask);
  }
}

// [iommu §6.23]
TEST_F(Monitor, NoOverflowIsLostWhileTheSelectorIsWritten) {
  start();
  map(root_, 3, 0x7000, 0x12345);
  EXPECT_TRUE(translate(0x7000).has_value());
  for (int round = 0; round < 300; ++round) {
    write(counter(1), ~std::uint64_t{0}, 8);
    write(selector(1), selects(HpmEvent::kUntranslatedRequest), 8);
    std::jthread writer([&] {  // the half without OF
      for (int i = 0; i < 20; ++i) write(selector(1), selects(HpmEvent::kUntranslatedRequest));
    });
    request(0x7000);
    writer.join();
    EXPECT_EQ(read(reg::kIocountovf), 1U << 1);
  }
}

// [iommu §6.21]
TEST_F(Monitor, CyclesRunUnlessInhibited) {
  const std::uint64_t before = read(reg::kIohpmcycles, 8);
  while (read(reg::kIohpmcycles, 8) <= before) {
  }
  write(reg::kIocountinh, 1);
  const std::uint64_t stopped = read(reg::kIohpmcycles, 8);
  std::this_thread::yield();
  EXPECT_EQ(read(reg::kIohpmcycles, 8), stopped);
  write(reg::kIohpmcycles, 1000, 8);
  EXPECT_EQ(read(reg::kIohpmcycles, 8), 1000U);
  write(reg::kIocountinh, 0);
  while (read(reg::kIohpmcycles, 8) <= 1000) {
  }
}

// [iommu §6.21]
TEST_F(Monitor, CyclesOverflowOnce) {
  write(reg::kIohpmcycles, Iohpmcycles::Counter::kMask - 1000, 8);
  while (read(reg::kIpsr) == 0) {
  }
  EXPECT_EQ(read(reg::kIocountovf), 1U);
  EXPECT_EQ(Iohpmcycles::Of::get(read(reg::kIohpmcycles, 8)), 1U);
  EXPECT_EQ(interrupts(Interrupt::kPmu), 1);
  write(reg::kIpsr, Ipsr::Pmip::kMask);
  write(reg::kIohpmcycles, ~std::uint64_t{0} - 1000, 8);
  while (Iohpmcycles::Counter::get(read(reg::kIohpmcycles, 8)) > Iohpmcycles::Counter::kMask / 2) {
  }
  EXPECT_EQ(read(reg::kIpsr), 0U) << "OF was set";
}

/// Three counters of 32 bits.
class SmallMonitor : public Monitor {
 protected:
  SmallMonitor() : Monitor({.capabilities = kAllCapabilities, .counters = 3, .counter_bits = 32}) {}
};

// [iommu §6.20] [iommu §6.21] [iommu §6.22]
TEST_F(SmallMonitor, WhatDoesNotExistReadsZero) {
  write(reg::kIocountinh, 0xffff'ffff);
  EXPECT_EQ(read(reg::kIocountinh), 0xfU);
  for (unsigned n = 1; n <= 31; ++n) {
    write(counter(n), ~std::uint64_t{0}, 8);
    write(selector(n), ~std::uint64_t{7}, 8);
    EXPECT_EQ(read(counter(n), 8), n <= 3 ? 0xffff'ffffU : 0U) << n;
    EXPECT_EQ(read(selector(n), 8) != 0, n <= 3) << n;
  }
  write(reg::kIohpmcycles, ~std::uint64_t{0}, 8);
  EXPECT_EQ(read(reg::kIohpmcycles, 8), Iohpmcycles::Of::kMask | 0xffff'ffffU);
}

// [iommu §6.22]
TEST_F(SmallMonitor, CountersWrapAtTheirWidth) {
  start();
  write(selector(2), selects(HpmEvent::kUntranslatedRequest), 8);
  write(counter(2), 0xffff'ffff, 8);
  request(0x1000);
  EXPECT_EQ(count(2), 0U);
  EXPECT_EQ(read(reg::kIocountovf), 1U << 2);
}

class NoMonitor : public Monitor {
 protected:
  NoMonitor() : Monitor({.capabilities = kAllCapabilities & ~Capabilities::Hpm::kMask}) {}
};

// [iommu §6]
TEST_F(NoMonitor, RegistersReadZero) {
  for (std::uint32_t at = reg::kIocountovf; at < reg::kTrReqIova; at += 4) {
    write(at, 0xffff'ffff);
    EXPECT_EQ(read(at), 0U) << at;
  }
  write(reg::kIcvec, 0xffff);
  EXPECT_EQ(Icvec::Pmiv::get(read(reg::kIcvec)), 0U);
}

}  // namespace
}  // namespace tandem::iommu::detail
