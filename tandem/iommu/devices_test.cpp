// SPDX-License-Identifier: Apache-2.0
// Devices come and go while others translate and software invalidates.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

/// A device that knows whether it is attached.
struct Visitor final : DeviceCallbacks {
  InvalidationReply invalidate(const AtsInvalidation& /*request*/) override {
    EXPECT_TRUE(attached.load()) << "it may have been freed";
    invalidations.fetch_add(1, std::memory_order_relaxed);
    return InvalidationReply::kCompleted;
  }
  void page_response(const PageResponse& /*response*/) override { EXPECT_TRUE(attached.load()); }
  std::atomic<bool> attached{false};
  std::atomic<int> invalidations{0};
};

class Devices : public Board {
 protected:
  static constexpr std::uint32_t kFirst = 0x30;
  static constexpr std::uint32_t kVisitors = 16;
  static constexpr std::uint64_t kAt = 0x7000;

  Devices() {
    start();
    frame_ = allocate_page();
    map(root_, 3, kAt, frame_);
    for (std::uint32_t i = 0; i < kVisitors; ++i) set_device(DeviceId{kFirst + i}, context_);
    write(reg::kFqcsr, 0);
  }
  /// Attaches, uses and detaches visitor `i`.
  void visit(std::uint32_t i, Visitor& visitor) {
    visitor.attached = true;
    auto port = iommu_->attach(DeviceId{kFirst + i}, visitor);
    ASSERT_TRUE(port.has_value()) << "it was detached";
    const auto found = (*port)->translate({kPasid, false}, Iova{kAt}, Access::kWrite);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->address.value, frame_ << kPageShift);
    (*port)->page_request({.address = Iova{kAt}, .pasid = kPasid, .read = true});
    std::this_thread::yield();
    port->reset();
    visitor.attached = false;
  }
  /// Invalidates at all visitors, there or not, and waits.
  void invalidate_everywhere() {
    for (std::uint32_t i = 0; i < kVisitors; i += 4) {
      submit({ats_inval(kFirst + i, kPasid.value, kAt, kPageBytes),
              ats_inval(kFirst + i + 1, kPasid.value, kAt, kPageBytes),
              ats_inval(kFirst + i + 2, kPasid.value, kAt, kPageBytes),
              ats_inval(kFirst + i + 3, kPasid.value, kAt, kPageBytes), iotinval_vma(kAt, kPscid),
              iofence_c({.order_reads = true, .order_writes = true})});
      while (!idle()) {
        if (error_bits() != 0) clear_errors();  // one that is not there times out at once
      }
    }
  }
  std::uint64_t frame_ = 0;
};

// [iommu §4.1.4]
TEST_F(Devices, StressNoneIsCalledOnceItIsDetachedAndNobodyElseNotices) {
  std::array<Visitor, kVisitors> visitors;
  std::atomic<bool> stop{false};
  std::vector<std::jthread> threads;
  threads.emplace_back([&] {
    while (!stop) {
      const auto found = translate(kAt, Access::kWrite);
      ASSERT_TRUE(found.has_value());
      EXPECT_EQ(found->address.value, frame_ << kPageShift);
    }
  });
  for (std::uint32_t half = 0; half < 2; ++half) {
    threads.emplace_back([&, half] {
      while (!stop) {
        for (std::uint32_t i = half; i < kVisitors && !HasFailure(); i += 2) visit(i, visitors[i]);
      }
    });
  }
  const auto reached = [&] {
    int sum = 0;
    for (const Visitor& visitor : visitors) sum += visitor.invalidations;
    return sum;
  };
  for (int round = 0; (round < 100 || reached() < 20) && !HasFailure(); ++round) {
    invalidate_everywhere();
  }
  stop = true;
  threads.clear();
}

}  // namespace
}  // namespace tandem::iommu::detail
