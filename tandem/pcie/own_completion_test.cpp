// SPDX-License-Identifier: Apache-2.0
// Who ends what an invalidation waited for goes on with the IOMMU's commands, whose handlers may
// reset the function: nothing of the one that ended is left by then.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "tandem/pcie/detail/test_bench.hpp"
#include "tandem/pcie/detail/test_gate.hpp"
#include "tandem/pcie/pcie.hpp"

namespace tandem::pcie {
namespace {

using namespace std::chrono_literals;
using Bench = detail::TestBench;
using detail::Gate;
using iommu::Capabilities;
using iommu::Cqcsr;

constexpr Pasid kPasid{1};
constexpr std::uint64_t kVa = 0x7f12'3456'7000;

/// Who translates the device's requests; in a guest, both do.
enum class By { kIommu, kAtc, kAtcInGuest };
std::string name_of(const testing::TestParamInfo<By>& by) {
  return std::array{"Iommu", "Atc", "AtcInGuest"}[static_cast<std::size_t>(by.param)];
}

/// A page of RAM at kVa, and a Gate behind it.
class OwnCompletion : public testing::TestWithParam<By> {
 protected:
  explicit OwnCompletion(bool looks_after = false, std::chrono::nanoseconds timeout = 20s)
      : bench_({.capabilities = iommu::kHostCapabilities | Capabilities::Sv39x4::make(1) |
                                Capabilities::T2gpa::make(1),
                .invalidation_timeout = timeout}),
        gate_(std::make_shared<Gate>(looks_after)) {
    const std::uint64_t ram = bench_.allocate(2);
    EXPECT_TRUE(bench_.memory.add_io({ram + kPageSize}, kPageSize, gate_, 1));
    const bool in_guest = GetParam() == By::kAtcInGuest;
    if (in_guest) bench_.enter_guest();
    bench_.bind(kPasid);
    for (const std::uint64_t page : {0u, 4096u}) {
      bench_.map(kPasid, kVa + page,
                 ram + page + (in_guest ? Bench::kGuestArena - Bench::kArena : 0));
    }
    const bool ats = GetParam() != By::kIommu;
    endpoint_ = bench_.endpoint({.ats = ats, .pri = ats});
  }
  AddressSpace space() { return endpoint_->space(kPasid); }

  static iommu::Command ats_inval() {
    return iommu::ats_inval(Bench::kDevice.value, kPasid.value, kVa, 2 * kPageSize, false);
  }
  /// Starts an invalidation on a command queue of its own, and a command that is none: when the
  /// IOMMU comes to it, it interrupts, and the handler resets the function.
  void start_invalidation_and_reset() {
    bench_.iommu.on_interrupt([this](iommu::Iommu::Interrupt which) {
      if (which != iommu::Iommu::Interrupt::kCommandQueue || reset_) return;
      reset_ = true;
      quiet_ = endpoint_->reset();
    });
    bench_.iommu.mmio_write(iommu::reg::kCqcsr, 0, 4);
    const std::uint64_t queue = bench_.allocate();
    iommu::Command none;
    none.words[0] = 0x7f;
    iommu::Command* const commands = reinterpret_cast<iommu::Command*>(bench_.host(queue));
    std::uint32_t tail = 0;
    commands[tail++] = iommu::iotinval_vma(std::nullopt, kPasid.value + 1);
    commands[tail++] = iommu::iotinval_gvma(Bench::kGscid);
    if (GetParam() != By::kIommu) commands[tail++] = ats_inval();
    commands[tail++] = iommu::iofence_c({.order_reads = true, .order_writes = true});
    commands[tail++] = none;
    bench_.iommu.mmio_write(iommu::reg::kCqb, iommu::QueueBase::make(7, queue >> 12), 8);
    bench_.iommu.mmio_write(iommu::reg::kCqcsr, Cqcsr::Cqen::make(1) | Cqcsr::Cie::make(1), 4);
    bench_.iommu.mmio_write(iommu::reg::kCqt, tail, 4);
  }

  Bench bench_;
  std::shared_ptr<Gate> gate_;
  std::atomic<bool> reset_{false}, quiet_{false};
  std::unique_ptr<Endpoint> endpoint_;
};

INSTANTIATE_TEST_SUITE_P(By, OwnCompletion, testing::Values(By::kIommu, By::kAtc, By::kAtcInGuest),
                         name_of);

TEST_P(OwnCompletion, AResetFindsNothingOfTheAccessThatJustEnded) {
  std::jthread device([&] {
    const std::array<std::byte, 8> word{};
    EXPECT_TRUE(space().write({kVa + kPageSize}, word).ok());
  });
  gate_->entered.wait();
  start_invalidation_and_reset();
  EXPECT_FALSE(reset_) << "the fence waits";
  gate_->let_go.count_down();
  device.join();
  EXPECT_TRUE(reset_);
  EXPECT_TRUE(quiet_);
}

using OwnCompletionOfWindow = OwnCompletion;
INSTANTIATE_TEST_SUITE_P(By, OwnCompletionOfWindow, testing::Values(By::kAtc), name_of);

TEST_P(OwnCompletionOfWindow, AResetFindsNothingOfTheWindowThatJustEnded) {
  auto window = space().map({kVa}, kPageSize, Access::kWrite);
  ASSERT_TRUE(window);
  start_invalidation_and_reset();
  EXPECT_FALSE(reset_) << "the fence waits";
  *window = {};
  EXPECT_TRUE(reset_);
  EXPECT_TRUE(quiet_);
}

class OwnCompletionLookedAfter : public OwnCompletion {
 protected:
  OwnCompletionLookedAfter() : OwnCompletion(/*looks_after=*/true, 200ms) {}
};
INSTANTIATE_TEST_SUITE_P(By, OwnCompletionLookedAfter, testing::Values(By::kIommu, By::kAtcInGuest),
                         name_of);

// What it wrote to the RAM before it is shown while the region is found already.
TEST_P(OwnCompletionLookedAfter, NothingWaitsForTheAccessAtAnyPoint) {
  gate_->let_go.count_down();
  std::atomic<bool> asked{false}, in_time{false};
  endpoint_->set_tap([&](const Message& message) {
    if (message.kind != Message::Kind::kMemoryWrite || asked.exchange(true)) return;
    EXPECT_EQ(message.size_bytes, 32u);
    std::jthread([&] {
      const iommu::Command fence = iommu::iofence_c({.order_reads = true, .order_writes = true});
      const iommu::Command vma = iommu::iotinval_vma(std::nullopt, kPasid.value + 1);
      in_time = GetParam() == By::kIommu
                    ? bench_.command({vma, fence})
                    : bench_.command({iommu::iotinval_gvma(Bench::kGscid), ats_inval(), fence});
    }).join();
  });
  const std::array<std::byte, 64> bytes{};
  EXPECT_TRUE(space().write({kVa + kPageSize - 32}, bytes).ok());
  EXPECT_TRUE(asked);
  EXPECT_TRUE(in_time);
}

}  // namespace
}  // namespace tandem::pcie
