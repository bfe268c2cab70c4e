// SPDX-License-Identifier: Apache-2.0
// Accesses where no memory is left.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <climits>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <thread>

#include "tandem/base/test_no_memory.hpp"
#include "tandem/pcie/detail/alarm.hpp"
#include "tandem/pcie/detail/test_bench.hpp"
#include "tandem/pcie/detail/test_gate.hpp"
#include "tandem/pcie/pcie.hpp"

namespace tandem::pcie {
namespace {

using namespace std::chrono_literals;
using Bench = detail::TestBench;
using detail::Gate;
using Capabilities = iommu::Capabilities;

class NoMemory : public testing::Test {
 protected:
  void SetUp() override {
    if (!kRunsOut) GTEST_SKIP() << "AddressSanitizer's operators are in the way";
  }
};

// What fails amid an access leaves its first part done and nobody told.
TEST_F(NoMemory, AnAccessFromRamIntoAnIoRegionTakesNone) {
  constexpr Pasid kPasid{1};
  constexpr std::uint64_t kVa = 0x7f12'3456'7000, kIo = 0x4000'0000;
  for (const bool ats : {false, true}) {
    Bench bench;
    bench.bind(kPasid);
    bench.map(kPasid, kVa, bench.allocate());
    const auto region = std::make_shared<Gate>();
    region->let_go.count_down();
    ASSERT_TRUE(bench.memory.add_io({kIo}, kPageSize, region).has_value());
    bench.map(kPasid, kVa + kPageSize, kIo);
    const auto endpoint = bench.endpoint({.ats = ats, .pri = ats});
    const AddressSpace space = endpoint->space(kPasid);
    const std::array<std::byte, 64> bytes{};
    allocations_left = 0;
    const DmaResult written = space.write({kVa + kPageSize - 32}, bytes);
    allocations_left = INT_MAX;
    EXPECT_TRUE(written.ok()) << ats;
    EXPECT_TRUE(region->done) << ats;
  }
}

// A command that waits sets an alarm, and has no way to say that it could not.
TEST_F(NoMemory, AnAlarmIsSetAllTheSame) {
  std::atomic<bool> rang{false};
  detail::Alarm alarm([&]() -> std::optional<detail::Alarm::Clock::time_point> {
    rang = true;
    return std::nullopt;
  });
  allocations_left = 0;
  alarm.set(detail::Alarm::Clock::now());
  allocations_left = INT_MAX;
  while (!rang) std::this_thread::yield();
}

// An interrupt that is marked in memory without its notice would be lost.
TEST_F(NoMemory, AMessageToAnInterruptFileTakesNone) {
  Bench bench({.capabilities = iommu::kHostCapabilities | Capabilities::Sv39x4::make(1) |
                               Capabilities::MsiFlat::make(1) | Capabilities::MsiMrif::make(1) |
                               Capabilities::AmoMrif::make(1),
               .invalidation_timeout = 20s});
  bench.enter_guest(/*t2gpa=*/false);
  const std::uint64_t file = bench.allocate();
  const std::uint64_t notice = bench.allocate();
  bench.set_interrupt_file(iommu::MsiPte::mrif(file, notice >> 12, 0x155));
  const auto endpoint = bench.endpoint({.ats = false, .pri = false});
  const AddressSpace space = endpoint->space(std::nullopt);
  const auto word = [&](std::uint64_t at) {
    std::uint32_t value = 0;
    std::memcpy(&value, bench.host(at), sizeof value);
    return value;
  };
  const std::uint32_t data = 5;
  allocations_left = 0;
  const DmaResult sent = space.write({Bench::kInterruptFile}, std::as_bytes(std::span(&data, 1)));
  allocations_left = INT_MAX;
  EXPECT_TRUE(sent.ok());
  EXPECT_EQ(word(file), 1U << data);
  EXPECT_EQ(word(notice), 0x155U);
}

}  // namespace
}  // namespace tandem::pcie
