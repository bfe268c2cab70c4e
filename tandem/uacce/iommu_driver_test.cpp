// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/iommu_driver.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <set>
#include <thread>

#include "tandem/pcie/pcie.hpp"
#include "tandem/uacce/detail/page_table.hpp"
#include "tandem/uacce/detail/pasid_allocator.hpp"

namespace tandem::uacce::detail {
namespace {

using iommu::Pasid;

class IommuDriverTest : public testing::Test {
 protected:
  explicit IommuDriverTest(const iommu::Iommu::Options& options = {}) : iommu_(memory_, options) {}
  void SetUp() override {
    ASSERT_TRUE(driver_.start([](const iommu::PageRequestRecord&) {
      return iommu::PageResponse::Code::kInvalidRequest;
    }));
  }

  memory::Memory memory_;
  iommu::Iommu iommu_;
  TableMemory tables_{memory_};
  IommuDriver driver_{memory_, iommu_, tables_};
};

TEST_F(IommuDriverTest, GivesEachDeviceAnIdAndReusesThatOfARemovedOne) {
  const auto first = driver_.add_device();
  const auto second = driver_.add_device();
  ASSERT_TRUE(first && second);
  EXPECT_NE(*first, *second);
  driver_.remove_device(*first);
  const auto third = driver_.add_device();
  ASSERT_TRUE(third);
  EXPECT_EQ(*third, *first);
}

// [iommu §3.2] a process context is found through three levels of 20-bit process id
TEST_F(IommuDriverTest, AProcessContextLeadsToItsPageTable) {
  const Pasid pasid{0xabcde};
  EXPECT_EQ(iommu::DirectoryEntry::V::get(driver_.walk_directory(pasid).back().entry), 0u);
  ASSERT_TRUE(driver_.set_process(pasid, memory::PhysAddr{0x1234000}));
  const auto steps = driver_.walk_directory(pasid);
  ASSERT_EQ(steps.size(), 3u);
  EXPECT_EQ(iommu::ProcessContext::Ta::V::get(steps[2].entry), 1u);
  EXPECT_EQ(iommu::ProcessContext::Ta::Pscid::get(steps[2].entry), pasid.value);
  const auto fsc = memory_.load64(steps[2].at.plus(8), std::memory_order_relaxed);
  ASSERT_TRUE(fsc);
  EXPECT_EQ(iommu::Fsc::Ppn::get(*fsc), 0x1234u);
  EXPECT_TRUE(driver_.clear_process(pasid));
  EXPECT_EQ(driver_.walk_directory(pasid).back().entry, 0u);
}

TEST_F(IommuDriverTest, ABatchLongerThanTheCommandQueueIsSplit) {
  for (int i = 0; i < 600; ++i) ASSERT_TRUE(driver_.add_device());
  // One IODIR for each device; the queue holds 255 commands.
  ASSERT_TRUE(driver_.set_process(Pasid{7}, memory::PhysAddr{0x5000}));
  EXPECT_EQ(driver_.walk_directory(Pasid{7}).size(), 3u);
}

// ---- Invalidations
// --------------------------------------------------------------------------------

/// Never completes an invalidation of kStuck.
class StuckDevice : public iommu::DeviceCallbacks {
 public:
  static constexpr Pasid kStuck{1};
  iommu::InvalidationReply invalidate(const iommu::AtsInvalidation& request) override {
    if (request.pasid != kStuck) return iommu::InvalidationReply::kCompleted;
    met_ = true;
    return iommu::InvalidationReply::kPending;
  }
  void page_response(const iommu::PageResponse&) override {}
  std::atomic<bool> met_{false};
};

class Invalidations : public IommuDriverTest {
 protected:
  Invalidations() : IommuDriverTest({.invalidation_timeout = IommuDriver::kInvalidationTimeout}) {}
};

TEST_F(Invalidations, AStuckSpaceDelaysItsOwnOnly) {
  const auto id = driver_.add_device();
  ASSERT_TRUE(id);
  StuckDevice device;
  const auto port = *iommu_.attach(*id, device);
  std::atomic<bool> enough{false};
  std::atomic<int> given_up{0};
  std::jthread stuck([&] {
    while (!enough) {
      EXPECT_FALSE(driver_.invalidate(StuckDevice::kStuck, 0x1000, 0x2000, false));
      ++given_up;
    }
  });
  while (!device.met_) std::this_thread::yield();
  for (int others = 0; others < 10; ++others) {
    EXPECT_TRUE(driver_.invalidate(Pasid{2}, 0x1000, 0x2000, false));
  }
  enough = true;
  // Counted, not timed: the whole machine may stand still for seconds.
  EXPECT_LT(given_up, 5) << "each would have waited until the stuck one is given up";
}

// ---- Page requests ------------------------------------------------------------------------------

/// A device, and a service that blocks for kBlocked and refuses the others.
class PageRequests : public testing::Test {
 protected:
  static constexpr Pasid kBlocked{1};
  static constexpr Pasid kServed{2};

  void SetUp() override {
    ASSERT_TRUE(driver_.start([this](const iommu::PageRequestRecord& record) {
      if (record.process_id() == kBlocked.value) {
        blocked_ = true;
        blocked_.notify_all();
        release_.wait(false);
      }
      return iommu::PageResponse::Code::kInvalidRequest;
    }));
    const auto device = driver_.add_device();
    ASSERT_TRUE(device);
    pcie::Endpoint::Options options;
    options.page_request_sent = [this, id = *device](const iommu::PageRequest& request) {
      if (sent_) sent_();
      driver_.serve_page_request(id, request);
    };
    auto endpoint = pcie::Endpoint::create(iommu_, *device, std::move(options));
    ASSERT_TRUE(endpoint);
    endpoint_ = std::move(*endpoint);
    for (const Pasid pasid : {kBlocked, kServed}) {
      auto table = PageTable::create(memory_, tables_);
      ASSERT_TRUE(table && driver_.set_process(pasid, table->root()));
    }
    // A request made while the interrupt is pending is no edge. Here none is, ever.
    iommu_.mmio_write(iommu::reg::kPqcsr, iommu::Pqcsr::Pqen::make(1), 4);
  }
  std::optional<pcie::DmaFault> access(Pasid pasid) {
    std::byte byte{};
    return endpoint_->space(pasid).read(iommu::Iova{0x7000}, {&byte, 1}).fault;
  }
  void expect_served() {
    const auto fault = access(kServed);
    ASSERT_TRUE(fault);
    EXPECT_EQ(fault->reason, pcie::DmaFault::Reason::kNotPermitted) << "it was not answered";
  }

  memory::Memory memory_;
  iommu::Iommu iommu_{memory_, {.invalidation_timeout = IommuDriver::kInvalidationTimeout}};
  TableMemory tables_{memory_};
  IommuDriver driver_{memory_, iommu_, tables_};
  std::unique_ptr<pcie::Endpoint> endpoint_;
  std::function<void()> sent_;  // on the requester's thread
  std::atomic<bool> blocked_{false};
  std::atomic<bool> release_{false};
};

TEST_F(PageRequests, AreServedThoughTheServiceOfAnotherBlocks) {
  std::jthread requester([&] { EXPECT_TRUE(access(kBlocked)); });
  blocked_.wait(false);
  expect_served();
  release_ = true;
  release_.notify_all();
}

TEST_F(PageRequests, AreServedByTheirRequestersWhicheverIsFirstInTheQueue) {
  std::atomic<int> sent{0};
  sent_ = [&] {
    sent.fetch_add(1);
    while (sent.load() < 2) std::this_thread::yield();  // both are in the queue
  };
  std::jthread requester([&] { EXPECT_TRUE(access(kBlocked)); });
  while (sent.load() < 1) std::this_thread::yield();
  expect_served();
  blocked_.wait(false);
  release_ = true;
  release_.notify_all();
}

TEST(PasidAllocator, GivesOutEachOnceAndNeverZero) {
  PasidAllocator pasids;
  std::set<std::uint32_t> seen;
  for (int i = 0; i < 5000; ++i) {
    const auto pasid = pasids.allocate();
    ASSERT_TRUE(pasid);
    EXPECT_NE(pasid->value, 0u);
    EXPECT_TRUE(seen.insert(pasid->value).second);
  }
}

TEST(PasidAllocator, ReusesTheOneFreedLongestAgoAfterARest) {
  PasidAllocator pasids;
  std::uint32_t last = 0;
  for (std::size_t i = 0; i < PasidAllocator::kResting; ++i) {
    const auto pasid = pasids.allocate();
    ASSERT_EQ(pasid->value, last + 1) << "none is used again at once";
    last = pasid->value;
    pasids.free(*pasid);
  }
  EXPECT_EQ(pasids.allocate()->value, 1u);
}

TEST(PasidAllocator, SaysWhenNoneIsLeft) {
  PasidAllocator pasids;
  for (std::uint32_t i = 1; i < std::uint32_t{1} << iommu::kPasidBits; ++i) {
    ASSERT_TRUE(pasids.allocate());
  }
  EXPECT_FALSE(pasids.allocate());
  pasids.free(Pasid{77});
  EXPECT_EQ(pasids.allocate()->value, 77u);
}

}  // namespace
}  // namespace tandem::uacce::detail
