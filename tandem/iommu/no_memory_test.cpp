// SPDX-License-Identifier: Apache-2.0
// What becomes of accesses that are held where no memory is left.
#include <gtest/gtest.h>

#include <climits>
#include <cstdlib>
#include <memory>
#include <new>
#include <set>

#include "tandem/iommu/detail/held_accesses.hpp"

namespace tandem::iommu::detail {
namespace {

/// What this thread may still allocate before there is no memory.
constinit thread_local int allocations_left = INT_MAX;

}  // namespace
}  // namespace tandem::iommu::detail

// AddressSanitizer brings operators of its own, which one of ours would not fit.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kRunsOut = false;
#else
constexpr bool kRunsOut = true;
// NOLINTNEXTLINE(misc-new-delete-overloads): the usual ones call it, and give back to free()
void* operator new(std::size_t size) {
  int& left = tandem::iommu::detail::allocations_left;
  void* const memory = left > 0 ? std::malloc(size) : nullptr;
  if (memory == nullptr) throw std::bad_alloc();
  if (left != INT_MAX) --left;
  return memory;
}
#endif

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
