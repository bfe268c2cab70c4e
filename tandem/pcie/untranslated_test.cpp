// SPDX-License-Identifier: Apache-2.0
// Functions without ATS: the IOMMU translates each of their requests.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "tandem/pcie/detail/test_bench.hpp"
#include "tandem/pcie/pcie.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::pcie {
namespace {

using Bench = detail::TestBench;
using Reason = DmaFault::Reason;
namespace reg = iommu::reg;

constexpr Pasid kPasid{1};
constexpr std::uint64_t kVa = 0x7f12'3456'7000;
constexpr std::uint64_t kIo = 0x4000'0000;

/// Two pages of memory behind callbacks.
class Scratch : public memory::IoRegion {
 public:
  memory::Outcome read(std::uint64_t offset, std::span<std::byte> to) override {
    std::memcpy(to.data(), &bytes[offset], to.size());
    return {to.size(), memory::Fault::kNone};
  }
  memory::Outcome write(std::uint64_t offset, std::span<const std::byte> from) override {
    std::memcpy(&bytes[offset], from.data(), from.size());
    return {from.size(), memory::Fault::kNone};
  }
  std::vector<std::byte> bytes = std::vector<std::byte>(2 * kPageSize);
};

class Untranslated : public testing::Test {
 protected:
  Untranslated()
      : bench_({.capabilities = iommu::kHostCapabilities | iommu::Capabilities::Hpm::make(1)}),
        endpoint_(bench_.endpoint({.ats = false, .pri = false})) {
    bench_.bind(kPasid);
    bench_.map(kPasid, kVa, physical_);
  }
  AddressSpace space() { return endpoint_->space(kPasid); }
  /// Lets counter 1 count `event`, from `start` on.
  void count(iommu::HpmEvent event, std::uint64_t start = 0) {
    bench_.iommu.mmio_write(reg::kIohpmevt1,
                            iommu::Iohpmevt::EventId::make(static_cast<std::uint64_t>(event)), 8);
    bench_.iommu.mmio_write(reg::kIohpmctr1, start, 8);
  }
  std::uint64_t counted() { return bench_.iommu.mmio_read(reg::kIohpmctr1, 8); }

  Bench bench_;
  const std::uint64_t physical_ = bench_.allocate(4);
  std::unique_ptr<Endpoint> endpoint_;
  std::array<std::byte, 64> bytes_{};
};

// What the interrupt does may wait for a grace period, or for the access.
TEST_F(Untranslated, AnOverflowInterruptsInNoSectionAndAfterTheAccess) {
  for (const auto event : {iommu::HpmEvent::kUntranslatedRequest, iommu::HpmEvent::kTlbMiss}) {
    bench_.command({iommu::iotinval_vma(std::nullopt, kPasid.value + 1)});
    count(event, ~std::uint64_t{0});
    int told = 0;
    bench_.iommu.on_interrupt([&](iommu::Iommu::Interrupt which) {
      if (which != iommu::Iommu::Interrupt::kPmu) return;
      EXPECT_FALSE(rcu::rcu_default_domain().in_section());
      EXPECT_EQ(bench_.host(physical_)[0], bytes_[0]) << "the access is over";
      EXPECT_TRUE(endpoint_->reset());
      ++told;
    });
    bytes_[0] = std::byte{7};
    EXPECT_TRUE(space().write({kVa}, bytes_).ok());
    bench_.iommu.on_interrupt({});
    EXPECT_EQ(told, 1);
    bench_.host(physical_)[0] = std::byte{0};
    bench_.iommu.mmio_write(reg::kIpsr, iommu::Ipsr::Pmip::kMask, 4);
    endpoint_.reset();
    endpoint_ = bench_.endpoint({.ats = false, .pri = false});
  }
}

TEST_F(Untranslated, AFaultIsRecordedOnceAndInNoSection) {
  int told = 0;
  bench_.iommu.mmio_write(reg::kFqcsr, iommu::Fqcsr::Fqen::make(1) | iommu::Fqcsr::Fie::make(1), 4);
  bench_.iommu.on_interrupt([&](iommu::Iommu::Interrupt) {
    EXPECT_FALSE(rcu::rcu_default_domain().in_section());
    ++told;
  });
  const DmaResult result = space().read({kVa + kPageSize - 16}, bytes_);
  EXPECT_EQ(result.done_bytes, 16U);
  EXPECT_EQ(result.fault->reason, Reason::kNotPermitted);
  EXPECT_EQ(result.fault->address.value, kVa + kPageSize);
  bench_.iommu.on_interrupt({});
  EXPECT_EQ(told, 1);
  EXPECT_EQ(bench_.take_faults(), 1U);
}

TEST_F(Untranslated, ARefusedRequestCountsOnce) {
  const auto asked = [&](Iova at) {
    count(iommu::HpmEvent::kUntranslatedRequest);
    EXPECT_EQ(space().write(at, bytes_).fault->reason, Reason::kNotPermitted);
    EXPECT_EQ(bench_.take_faults(), 1U);
    return counted();
  };
  EXPECT_EQ(asked({kVa + kPageSize}), 1U);
  EXPECT_EQ(asked({kVa + kPageSize - 16}), 2U) << "one for each page";
}

TEST_F(Untranslated, AnAccessAsksForEachPageOnce) {
  // Pages that are not contiguous, contiguous ones, an I/O region after host RAM.
  bench_.map(kPasid, kVa + kPageSize, physical_ + 2 * kPageSize);
  bench_.map(kPasid, kVa + 2 * kPageSize, physical_ + 3 * kPageSize);
  const auto scratch = std::make_shared<Scratch>();
  ASSERT_TRUE(bench_.memory.add_io({kIo}, 2 * kPageSize, scratch));
  bench_.map(kPasid, kVa + 3 * kPageSize, kIo);
  bench_.map(kPasid, kVa + 4 * kPageSize, kIo + kPageSize);
  std::vector<std::byte> from(4 * kPageSize + 16), to(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i * 7 >> 3);
  count(iommu::HpmEvent::kUntranslatedRequest);
  EXPECT_TRUE(space().write({kVa + 8}, from).ok());
  EXPECT_EQ(counted(), 5U);
  EXPECT_TRUE(space().read({kVa + 8}, to).ok());
  EXPECT_EQ(counted(), 10U);
  EXPECT_EQ(from, to);
  EXPECT_EQ(std::memcmp(bench_.host(physical_ + 2 * kPageSize), &from[kPageSize - 8], 64), 0);
  EXPECT_EQ(std::memcmp(scratch->bytes.data(), &from[3 * kPageSize - 8], 64), 0);
}

TEST_F(Untranslated, StressNoFrameIsTouchedAfterTheFence) {
  constexpr std::uint64_t kPhysical = 0x4000'0000;
  auto ram = *Mapping::anonymous(2 * kPageSize);
  ASSERT_TRUE(bench_.memory.add_host_ram({kPhysical}, ram.bytes()));
  const auto frame = [&](unsigned number) {
    return ram.bytes().subspan(number * kPageSize, kPageSize);
  };
  bench_.map(kPasid, kVa, kPhysical);
  std::atomic<bool> stop{false};
  std::atomic<int> writes{0};
  std::jthread device([&] {
    while (!stop) {
      if (space().write({kVa}, bytes_).ok()) writes.fetch_add(1, std::memory_order_relaxed);
    }
  });
  for (unsigned round = 0; round < 400 || writes < 100; ++round) {
    const auto mine = frame(round % 2);
    bench_.map(kPasid, kVa, kPhysical + (1 - round % 2) * kPageSize);
    ASSERT_TRUE(bench_.command({iommu::iotinval_vma(std::nullopt, kPasid.value + 1),
                                iommu::iofence_c({.order_reads = true, .order_writes = true})}));
    // It is somebody else's now: nothing may write there.
    std::memset(mine.data(), 0x5a, mine.size());
    std::this_thread::yield();
    EXPECT_TRUE(std::ranges::all_of(mine, [](std::byte b) { return b == std::byte{0x5a}; }));
    if (HasFailure()) break;
  }
  stop = true;
}

}  // namespace
}  // namespace tandem::pcie
