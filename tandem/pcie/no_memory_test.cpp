// SPDX-License-Identifier: Apache-2.0
// What becomes of accesses that lack memory under way.
#include <gtest/gtest.h>

#include <climits>
#include <cstring>
#include <memory>
#include <new>
#include <span>

#include "tandem/base/test_no_memory.hpp"
#include "tandem/pcie/detail/test_bench.hpp"
#include "tandem/pcie/pcie.hpp"

namespace tandem::pcie {
namespace {

using namespace std::chrono_literals;
using Bench = detail::TestBench;
using Capabilities = iommu::Capabilities;

class NoMemory : public testing::Test {
 protected:
  void SetUp() override {
    if (!kRunsOut) GTEST_SKIP() << "AddressSanitizer's operators are in the way";
  }
};

// An interrupt that is marked in memory without its notice would be lost.
TEST_F(NoMemory, AMessageThatLacksItIsNotMarkedInTheInterruptFile) {
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
  int lacked = 0;
  for (bool sent = false; !sent;) {
    try {
      allocations_left = lacked;
      sent = space.write({Bench::kInterruptFile}, std::as_bytes(std::span(&data, 1))).ok();
      allocations_left = INT_MAX;
      EXPECT_TRUE(sent);
      break;
    } catch (const std::bad_alloc&) {
      allocations_left = INT_MAX;
      EXPECT_EQ(word(file), 0U) << lacked;
      ++lacked;
    }
  }
  EXPECT_GT(lacked, 0);
  EXPECT_EQ(word(file), 1U << data);
  EXPECT_EQ(word(notice), 0x155U);
}

}  // namespace
}  // namespace tandem::pcie
