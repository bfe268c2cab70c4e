// SPDX-License-Identifier: Apache-2.0
// Accesses to I/O regions outlast the sections in which they were translated. What is invalidated
// is over all the same.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <functional>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/pcie/detail/test_bench.hpp"
#include "tandem/pcie/detail/test_gate.hpp"
#include "tandem/pcie/pcie.hpp"

namespace tandem::pcie {
namespace {

using namespace std::chrono_literals;
using Bench = detail::TestBench;
using detail::Gate;
using iommu::Capabilities;
using memory::Fault;
using memory::Outcome;

std::string name_of(const testing::TestParamInfo<bool>& ats) {
  return ats.param ? "translated" : "untranslated";
}

constexpr Pasid kPasid{1}, kOther{2};
constexpr std::uint64_t kVa = 0x7f12'3456'7000;
constexpr std::uint64_t kIo = 0x4000'0000;

/// Two frames. Nobody may be in one that was revoked.
class Frames : public memory::IoRegion {
 public:
  Outcome read(std::uint64_t, std::span<std::byte> to) override {
    return {to.size(), Fault::kNone};
  }
  Outcome write(std::uint64_t offset, std::span<const std::byte> from) override {
    const std::atomic<bool>& frame = revoked[offset / kPageSize];
    if (frame) violations.fetch_add(1);
    std::this_thread::yield();
    if (frame) violations.fetch_add(1);
    writes.fetch_add(1);
    return {from.size(), Fault::kNone};
  }
  std::array<std::atomic<bool>, 2> revoked{};
  std::atomic<int> violations{0}, writes{0};
};

class IoRegions : public testing::TestWithParam<bool> {
 protected:
  explicit IoRegions(const iommu::Iommu::Options& options = {.invalidation_timeout = 20s})
      : bench_(options) {
    for (const Pasid pasid : {kPasid, kOther}) {
      bench_.bind(pasid);
      bench_.map(pasid, kVa, bench_.allocate());
    }
  }
  void open(bool ats) { endpoint_ = bench_.endpoint({.ats = ats, .pri = ats}); }
  void SetUp() override { open(GetParam()); }
  AddressSpace space(Pasid pasid = kPasid) { return endpoint_->space(pasid); }
  std::jthread writer(bool ok = true) {
    return std::jthread([this, ok] {
      const std::array<std::byte, 8> word{};
      EXPECT_EQ(space().write({kVa}, word).ok(), ok);
    });
  }
  /// Runs `software`, and returns when it waits at a fence, or is over where no fence waits.
  std::jthread until_it_waits(std::function<void()> software) {
    std::jthread thread([this, software = std::move(software)] {
      software();
      software_is_over_ = true;
    });
    while (!software_is_over_ && bench_.iommu.mmio_read(iommu::reg::kCqt, 4) ==
                                     bench_.iommu.mmio_read(iommu::reg::kCqh, 4)) {
      std::this_thread::yield();
    }
    return thread;
  }

  Bench bench_;
  std::unique_ptr<Endpoint> endpoint_;
  std::atomic<bool> software_is_over_{false};
};

INSTANTIATE_TEST_SUITE_P(Ats, IoRegions, testing::Bool(), name_of);

TEST_P(IoRegions, AnInvalidationWaitsForTheAccessThroughWhatItVoidsAndHoldsUpNobodyElse) {
  const auto gate = std::make_shared<Gate>();
  ASSERT_TRUE(bench_.memory.add_io({kIo}, kPageSize, gate));
  bench_.map(kPasid, kVa, kIo);
  const std::jthread device = writer();
  gate->entered.wait();
  EXPECT_TRUE(bench_.unmap(kOther, kVa)) << "while the access lasts";
  const std::array<std::byte, 8> word{};
  EXPECT_FALSE(space(kOther).write({kVa}, word).ok());
  const std::jthread software = until_it_waits([&] {
    EXPECT_TRUE(bench_.unmap(kPasid, kVa));
    EXPECT_TRUE(gate->done);
  });
  EXPECT_FALSE(gate->done);
  gate->let_go.count_down();
}

TEST_P(IoRegions, ARegionThatLooksAfterItsAccessesIsNotWaitedFor) {
  const auto gate = std::make_shared<Gate>(/*looks_after=*/true);
  ASSERT_TRUE(bench_.memory.add_io({kIo}, kPageSize, gate));
  bench_.map(kPasid, kVa, kIo);
  const std::jthread device = writer();
  gate->entered.wait();
  EXPECT_TRUE(bench_.unmap(kPasid, kVa));
  EXPECT_FALSE(gate->done);
  gate->let_go.count_down();
}

// Catches the planted faults iommu-fence-passes-access and pcie-io-without-slot.
TEST_P(IoRegions, StressNoAccessIsMadeAfterTheFence) {
  const auto frames = std::make_shared<Frames>();
  ASSERT_TRUE(bench_.memory.add_io({kIo}, 2 * kPageSize, frames));
  bench_.map(kPasid, kVa, kIo);
  std::atomic<bool> stop{false};
  std::vector<std::jthread> devices;
  for (int i = 0; i < 2; ++i) {
    devices.emplace_back([&] {
      const std::array<std::byte, 64> bytes{};
      while (!stop) EXPECT_TRUE(space().write({kVa}, bytes).ok());
    });
  }
  for (unsigned round = 0; round < 300 || frames->writes < 100; ++round) {
    auto& mine = frames->revoked[round % 2];
    bench_.map(kPasid, kVa, kIo + (1 - round % 2) * kPageSize);
    EXPECT_TRUE(bench_.invalidate(kPasid, kVa, kPageSize));
    mine = true;  // it is somebody else's now
    for (int i = 0; i < 3; ++i) std::this_thread::yield();
    EXPECT_EQ(frames->violations, 0);
    mine = false;
    if (HasFailure()) break;
  }
  stop = true;
}

// Who looked for an I/O region and found nothing waits for no invalidation of its own.
TEST_P(IoRegions, TheServiceOfAPageWhoseMemoryIsGoneInvalidatesIt) {
  const std::uint64_t physical = bench_.allocate();
  bench_.map(kPasid, kVa, kIo);  // where nothing is
  bench_.on_page_request = [&](const iommu::PageRequestRecord&) {
    EXPECT_TRUE(bench_.unmap(kPasid, kVa));
    bench_.map(kPasid, kVa, physical);
    return iommu::PageResponse::Code::kSuccess;
  };
  const std::array<std::byte, 8> word{};
  const DmaResult result = space().write({kVa}, word);
  EXPECT_EQ(result.ok(), GetParam()) << "untranslated requests ask for no page";
}

/// More accesses at once than there are slots.
TEST_P(IoRegions, ManyAccessesAreWaitedForTogether) {
  constexpr int kThreads = 80;
  class Crowd : public memory::IoRegion {
   public:
    Outcome read(std::uint64_t, std::span<std::byte> to) override {
      return {to.size(), Fault::kNone};
    }
    Outcome write(std::uint64_t, std::span<const std::byte> from) override {
      entered.count_down();
      let_go.wait();
      done.fetch_add(1);
      return {from.size(), Fault::kNone};
    }
    std::latch entered{kThreads}, let_go{1};
    std::atomic<int> done{0};
  };
  const auto crowd = std::make_shared<Crowd>();
  ASSERT_TRUE(bench_.memory.add_io({kIo}, kPageSize, crowd));
  bench_.map(kPasid, kVa, kIo);
  std::vector<std::jthread> devices;
  for (int i = 0; i < kThreads; ++i) devices.push_back(writer());
  crowd->entered.wait();
  const std::jthread software = until_it_waits([&] {
    EXPECT_TRUE(bench_.unmap(kPasid, kVa));
    EXPECT_EQ(crowd->done, kThreads);
  });
  crowd->let_go.count_down();
}

class GuestIoRegions : public IoRegions {
 protected:
  GuestIoRegions()
      : IoRegions({.capabilities = iommu::kHostCapabilities | Capabilities::Sv39x4::make(1) |
                                   Capabilities::T2gpa::make(1),
                   .invalidation_timeout = 20s}) {}
};

INSTANTIATE_TEST_SUITE_P(Ats, GuestIoRegions, testing::Bool(), name_of);

// A device that is told guest physical addresses holds on to what the second stage made of them.
TEST_P(GuestIoRegions, AFenceBehindTheSecondStageWaitsForTheAccess) {
  const std::uint64_t physical = bench_.allocate();
  const auto gate = std::make_shared<Gate>();
  ASSERT_TRUE(bench_.memory.add_io({physical}, kPageSize, gate, 1));
  bench_.enter_guest(/*t2gpa=*/GetParam());
  bench_.map(kPasid, kVa, Bench::kGuestArena + (physical - Bench::kArena));
  const std::jthread device = writer();
  gate->entered.wait();
  const std::jthread software = until_it_waits([&] {
    bench_.set_guest_memory(false);
    EXPECT_TRUE(gate->done);
  });
  EXPECT_FALSE(gate->done);
  gate->let_go.count_down();
}

}  // namespace
}  // namespace tandem::pcie
