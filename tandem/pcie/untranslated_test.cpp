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

class Untranslated : public testing::Test {
 protected:
  Untranslated()
      : bench_({.capabilities = iommu::kHostCapabilities | iommu::Capabilities::Hpm::make(1)}),
        endpoint_(bench_.endpoint({.ats = false, .pri = false})) {
    bench_.bind(kPasid);
    bench_.map(kPasid, kVa, bench_.allocate());
  }
  AddressSpace space() { return endpoint_->space(kPasid); }

  Bench bench_;
  std::unique_ptr<Endpoint> endpoint_;
  std::array<std::byte, 64> bytes_{};
};

TEST_F(Untranslated, TheSectionThatCopiesIsTheOneThatTranslates) {
  // An overflow is signalled from within the translation: of the next request.
  bench_.iommu.mmio_write(reg::kIohpmevt1,
                          iommu::Iohpmevt::EventId::make(
                              static_cast<std::uint64_t>(iommu::HpmEvent::kUntranslatedRequest)),
                          8);
  bench_.iommu.mmio_write(reg::kIohpmctr1, ~std::uint64_t{0}, 8);
  int asked = 0;
  bench_.iommu.on_interrupt([&](iommu::Iommu::Interrupt which) {
    if (which != iommu::Iommu::Interrupt::kPmu) return;
    EXPECT_TRUE(rcu::rcu_default_domain().in_section()) << "a fence has to wait for the access";
    ++asked;
  });
  EXPECT_TRUE(space().write({kVa}, bytes_).ok());
  bench_.iommu.on_interrupt({});
  EXPECT_EQ(asked, 1);
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
    bench_.iommu.mmio_write(reg::kIohpmevt1,
                            iommu::Iohpmevt::EventId::make(
                                static_cast<std::uint64_t>(iommu::HpmEvent::kUntranslatedRequest)),
                            8);
    bench_.iommu.mmio_write(reg::kIohpmctr1, 0, 8);
    EXPECT_EQ(space().write(at, bytes_).fault->reason, Reason::kNotPermitted);
    EXPECT_EQ(bench_.take_faults(), 1U);
    return bench_.iommu.mmio_read(reg::kIohpmctr1, 8);
  };
  EXPECT_EQ(asked({kVa + kPageSize}), 1U);
  EXPECT_EQ(asked({kVa + kPageSize - 16}), 2U) << "one for each page";
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
