// SPDX-License-Identifier: Apache-2.0
// What becomes of accesses that are held where no memory is left.
#include <gtest/gtest.h>

#include <climits>
#include <memory>
#include <new>
#include <set>

#include "tandem/base/test_no_memory.hpp"
#include "tandem/iommu/detail/held_accesses.hpp"

namespace tandem::iommu::detail {
namespace {

class NoMemory : public testing::Test {
 protected:
  void SetUp() override {
    if (!kRunsOut) GTEST_SKIP() << "AddressSanitizer's operators are in the way";
  }
};

TEST_F(NoMemory, AnAccessThatCannotBeginChangesNothingAndToEndOneTakesNone) {
  const auto generations = std::make_unique<Generations>();
  const Stamp stamp = Generations::Snapshot(*generations, DeviceId{1}, 0).of_device_context();
  HeldAccesses accesses(*generations);
  std::set<std::uint32_t> running;
  int lacked = 0;
  while (running.size() < 100) {
    std::uint32_t access = 0;
    try {
      allocations_left = 0;
      access = accesses.begin(stamp);
      allocations_left = INT_MAX;
    } catch (const std::bad_alloc&) {
      allocations_left = INT_MAX;
      ++lacked;
      access = accesses.begin(stamp);
    }
    EXPECT_TRUE(running.insert(access).second) << access << " twice";
  }
  EXPECT_GT(lacked, 0);
  generations->invalidate_all();
  constexpr auto kNever = HeldAccesses::TimePoint::max();
  EXPECT_FALSE(accesses.none_void_or_wait(kNever));
  allocations_left = 0;
  int ended = 0;
  for (const std::uint32_t access : running) ended += accesses.end(access) ? 1 : 0;
  allocations_left = INT_MAX;
  EXPECT_EQ(ended, 1) << "the last ends the wait";
}

}  // namespace
}  // namespace tandem::iommu::detail
