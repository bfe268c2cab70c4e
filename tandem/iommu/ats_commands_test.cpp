// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tandem/iommu/detail/itag_table.hpp"
#include "tandem/iommu/detail/test_board.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::iommu::detail {
namespace {

using namespace std::chrono_literals;
using Interrupt = Iommu::Interrupt;

class AtsCommands : public Board {
 protected:
  explicit AtsCommands(std::chrono::nanoseconds timeout = 1h)
      : Board(Iommu::Options{.invalidation_timeout = timeout}) {
    start();
  }
  static Command invalidation(std::uint64_t address = 0x7000) {
    return ats_inval(kDevice.value, kPasid.value, address, kPageBytes);
  }
  /// Sends `count` requests that the device does not complete yet.
  std::vector<AtsInvalidation> send_pending(std::size_t count) {
    device_.reply = InvalidationReply::kPending;
    for (std::size_t i = 0; i < count; ++i) submit({invalidation(i * kPageBytes)});
    EXPECT_TRUE(idle()) << "only a fence waits";
    auto sent = device_.take_invalidations();
    EXPECT_EQ(sent.size(), count);
    return sent;
  }
  static std::chrono::steady_clock::time_point after_time_out() {
    return std::chrono::steady_clock::now() + 2h;
  }
};

// [iommu §4.1.4]
TEST_F(AtsCommands, AtsInvalReachesTheDeviceItNames) {
  submit({ats_inval(kDevice.value, kPasid.value, 0x7000, 4096),
          ats_inval(kDevice.value, std::nullopt, 0x40'0000, 0x20'0000),
          ats_inval(kDevice.value, kPasid.value, 0, 0, true), iofence_c({})});
  ASSERT_TRUE(idle());
  const auto got = device_.take_invalidations();
  ASSERT_EQ(got.size(), 3U);
  EXPECT_EQ(got[0].pasid, kPasid);
  EXPECT_EQ(got[0].address, Iova{0x7000});
  EXPECT_EQ(got[0].size_bytes, 4096U);
  EXPECT_FALSE(got[0].global);
  EXPECT_EQ(got[1].pasid, std::nullopt);
  EXPECT_EQ(got[1].address, Iova{0x40'0000});
  EXPECT_EQ(got[1].size_bytes, 0x20'0000U);
  EXPECT_EQ(got[2].address, Iova{0});
  EXPECT_EQ(got[2].size_bytes, 0U) << "2^64";
  EXPECT_TRUE(got[2].global);
  EXPECT_NE(got[0].itag, got[1].itag);
}

// [iommu §4.1.4]
TEST_F(AtsCommands, EveryRangeSizeSurvivesItsEncoding) {
  for (unsigned log2_size = 12; log2_size < 64; ++log2_size) {
    const std::uint64_t size = std::uint64_t{1} << log2_size;
    const std::uint64_t address = log2_size == 63 ? size : size * 2;
    submit({ats_inval(kDevice.value, kPasid.value, address, size)});
    const auto got = device_.take_invalidations();
    ASSERT_EQ(got.size(), 1U);
    EXPECT_EQ(got[0].size_bytes, size) << log2_size;
    EXPECT_EQ(got[0].address.value, address) << log2_size;
  }
}

// [iommu §4.1.4]
TEST_F(AtsCommands, ATimedOutInvalidationIsReportedByTheNextFenceOnce) {
  device_.reply = InvalidationReply::kTimedOut;
  submit({ats_inval(kDevice.value, kPasid.value, 0x7000, 4096)});
  EXPECT_TRUE(idle());
  EXPECT_EQ(error_bits(), 0U);
  submit({iofence_c({})});
  EXPECT_EQ(error_bits(), Cqcsr::CmdTo::kMask);
  EXPECT_EQ(read(reg::kCqh), 1U) << "cqh references the fence";
  EXPECT_EQ(interrupts(Interrupt::kCommandQueue), 1);
  clear_errors();
  EXPECT_TRUE(idle()) << "the fence runs again and completes";
  EXPECT_EQ(error_bits(), 0U);
}

// [iommu §4.1.4]
TEST_F(AtsCommands, AnInvalidationOfAnAbsentDeviceTimesOut) {
  submit({ats_inval(kDevice.value + 1, kPasid.value, 0x7000, 4096), iofence_c({})});
  EXPECT_EQ(error_bits(), Cqcsr::CmdTo::kMask);
  clear_errors();
  submit({ats_inval(kDevice.value | 0x30000, kPasid.value, 0x7000, 4096), iofence_c({})});
  EXPECT_EQ(error_bits(), Cqcsr::CmdTo::kMask) << "the segment is part of the name";
  EXPECT_TRUE(device_.take_invalidations().empty());
}

// [iommu §4.1.4]
TEST_F(AtsCommands, AtsPrgrDeliversAPageResponse) {
  submit({ats_prgr(kDevice.value, kPasid.value, 0x1ff, 1), ats_prgr(kDevice.value, {}, 3, 0),
          ats_prgr(kDevice.value, {}, 4, 7)});
  ASSERT_TRUE(idle());
  const auto got = device_.take_responses();
  ASSERT_EQ(got.size(), 3U);
  EXPECT_EQ(got[0].pasid, kPasid);
  EXPECT_EQ(got[0].group, 0x1ff);
  EXPECT_EQ(got[0].code, PageResponse::Code::kInvalidRequest);
  EXPECT_EQ(got[1].pasid, std::nullopt);
  EXPECT_EQ(got[1].code, PageResponse::Code::kSuccess);
  EXPECT_EQ(got[2].code, PageResponse::Code::kResponseFailure) << "a code without a meaning";
}

// [iommu §4.1.4]
TEST_F(AtsCommands, ReservedBitsOfAtsCommandsAreIllegal) {
  for (const unsigned bit : {8U, 10U, 11U, 34U, 39U}) {
    EXPECT_TRUE(illegal(ats_prgr(kDevice.value, {}, 0, 0), 0, bit)) << bit;
  }
}

// [iommu §4.1.4] Catches the planted fault iommu-fence-passes-invalidation.
TEST_F(AtsCommands, ADeviceThatAnswersLateHoldsTheFenceAndNothingElse) {
  map(root_, 3, 0x1000, 0x90000);
  const std::uint64_t flag = allocate_page() << kPageShift;
  const auto sent = send_pending(1);
  submit({iotinval_vma(0x1000, kPscid), ats_prgr(kDevice.value, {}, 3, 0),
          iofence_c({.interrupt = true, .address = flag, .data = 1}),
          ats_prgr(kDevice.value, {}, 4, 0)});
  EXPECT_EQ(read(reg::kCqh), 3U) << "at the fence";
  EXPECT_EQ(load(flag), 0U);
  EXPECT_EQ(device_.take_responses().size(), 1U) << "what is behind the fence waits";
  EXPECT_TRUE(translate(0x1000).has_value());
  write(reg::kCqt, read(reg::kCqt));
  EXPECT_EQ(read(reg::kCqh), 3U) << "the doorbell does not help";
  port_->complete_invalidation(sent[0].itag);
  EXPECT_TRUE(idle());
  EXPECT_EQ(error_bits(), 0U);
  EXPECT_EQ(load(flag), 1U);
  EXPECT_EQ(device_.take_responses().size(), 1U);
  EXPECT_EQ(interrupts(Interrupt::kCommandQueue), 1) << "of WSI";
}

// [iommu §4.1.2]
TEST_F(AtsCommands, AFenceWaitsForEveryInvalidationBeforeIt) {
  const auto sent = send_pending(3);
  fence();
  for (const unsigned i : {1U, 2U, 0U}) {
    EXPECT_FALSE(idle());
    port_->complete_invalidation(sent[i].itag);
  }
  EXPECT_TRUE(idle());
}

// [iommu §4.1.4] Catches the planted fault iommu-accept-wrong-itag.
TEST_F(AtsCommands, ACompletionThatBelongsToNoRequestIsIgnored) {
  const auto sent = send_pending(2);
  ASSERT_NE(sent[0].itag, sent[1].itag);
  FakeDevice other;
  const auto stranger = *iommu_->attach(DeviceId{kDevice.value + 1}, other);
  fence();
  stranger->complete_invalidation(sent[0].itag);
  stranger->complete_invalidation(sent[1].itag);
  EXPECT_FALSE(idle()) << "another device's request";
  port_->complete_invalidation(static_cast<std::uint8_t>(sent[1].itag + 1));
  port_->complete_invalidation(ItagTable::kCount);
  port_->complete_invalidation(255);
  EXPECT_FALSE(idle()) << "no request has that tag";
  port_->complete_invalidation(sent[0].itag);
  port_->complete_invalidation(sent[0].itag);
  EXPECT_FALSE(idle()) << "a second completion of one is none of the other";
  port_->complete_invalidation(sent[1].itag);
  EXPECT_TRUE(idle());
  EXPECT_EQ(error_bits(), 0U);
}

// [iommu §4.1.4]
TEST(ItagTable, ATagThatDoesNotExistIsIgnored) {
  // By itself on the heap, so that AddressSanitizer sees what lies behind it.
  const auto table = std::make_unique<ItagTable>();
  ASSERT_TRUE(table->claim(DeviceId{1}, ItagTable::TimePoint::max()).has_value());
  EXPECT_FALSE(table->none_outstanding_or_wait());
  for (unsigned itag = ItagTable::kCount; itag < 256; ++itag) {
    EXPECT_FALSE(table->complete(DeviceId{1}, static_cast<std::uint8_t>(itag), 1, std::nullopt));
  }
}

TEST_F(AtsCommands, ADeviceThatNeverAnswersTimesOut) {
  const auto sent = send_pending(2);
  fence();
  iommu_->advance();
  EXPECT_FALSE(idle());
  EXPECT_EQ(error_bits(), 0U);
  port_->complete_invalidation(sent[1].itag);
  iommu_->advance(after_time_out());
  EXPECT_EQ(error_bits(), Cqcsr::CmdTo::kMask);
  EXPECT_EQ(read(reg::kCqh), 2U) << "cqh references the fence";
  EXPECT_EQ(interrupts(Interrupt::kCommandQueue), 1);
  clear_errors();
  EXPECT_TRUE(idle()) << "the fence runs again and completes";
}

// [iommu §4.1.4]
TEST_F(AtsCommands, ATimeOutBeforeTheFenceIsReportedByIt) {
  (void)send_pending(1);
  iommu_->advance(after_time_out());
  EXPECT_EQ(error_bits(), 0U);
  fence();
  EXPECT_EQ(error_bits(), Cqcsr::CmdTo::kMask);
}

// [iommu §4.1.4]
TEST_F(AtsCommands, ACompletionAfterTheTimeOutIsIgnored) {
  const auto late = send_pending(1)[0];
  iommu_->advance(after_time_out());
  port_->complete_invalidation(late.itag);
  fence();
  EXPECT_EQ(error_bits(), Cqcsr::CmdTo::kMask);
  clear_errors();

  const auto sent = send_pending(ItagTable::kCount);
  fence();
  port_->complete_invalidation(late.itag, 1, late.sequence);
  for (const auto& request : sent) {
    EXPECT_FALSE(idle());
    port_->complete_invalidation(request.itag, 1, request.sequence);
  }
  EXPECT_TRUE(idle()) << "also of a tag that is in use again";
}

// [iommu §4.1.4]
TEST_F(AtsCommands, ARequestMayTakeSeveralCompletions) {
  const auto sent = send_pending(1);
  fence();
  for (unsigned i = 0; i < 8; ++i) {
    EXPECT_FALSE(idle()) << i;
    port_->complete_invalidation(sent[0].itag, 8);
  }
  EXPECT_TRUE(idle());
}

// [iommu §4.1.4]
TEST_F(AtsCommands, WithEveryItagInUseTheQueueWaits) {
  const auto sent = send_pending(ItagTable::kCount);
  for (std::size_t i = 0; i < sent.size(); ++i) EXPECT_EQ(sent[i].itag, i) << "taken in turn";
  submit({invalidation(0x1'0000), ats_prgr(kDevice.value, {}, 3, 0)});
  EXPECT_FALSE(idle());
  EXPECT_TRUE(device_.take_invalidations().empty());
  port_->complete_invalidation(sent[5].itag);
  EXPECT_TRUE(idle());
  const auto next = device_.take_invalidations();
  ASSERT_EQ(next.size(), 1U);
  EXPECT_EQ(next[0].itag, sent[5].itag);
  EXPECT_EQ(device_.take_responses().size(), 1U);
  submit({invalidation()});
  EXPECT_FALSE(idle());
  iommu_->advance(after_time_out());
  EXPECT_TRUE(idle()) << "a time-out frees tags, too";
}

// [iommu §4.1.4]
TEST_F(AtsCommands, AnItagInUseIsPassedOverForTheNextInTurn) {
  ASSERT_EQ(send_pending(1)[0].itag, 0U);
  device_.reply = InvalidationReply::kCompleted;
  for (std::size_t i = 1; i < ItagTable::kCount; ++i) submit({invalidation()});
  (void)device_.take_invalidations();
  submit({invalidation()});
  EXPECT_EQ(device_.take_invalidations()[0].itag, 1U);
}

// [iommu §4.1.4]
TEST_F(AtsCommands, ADeviceThatIsDetachedHasTimedOut) {
  (void)send_pending(1);
  fence();
  EXPECT_FALSE(idle());
  port_.reset();
  EXPECT_EQ(error_bits(), Cqcsr::CmdTo::kMask);
  EXPECT_EQ(interrupts(Interrupt::kCommandQueue), 1);
}

// [iommu §6.15]
TEST_F(AtsCommands, TheQueueCanBeSwitchedOffWhileAFenceWaits) {
  const auto sent = send_pending(1);
  fence();
  write(reg::kCqcsr, 0);
  EXPECT_EQ(read(reg::kCqcsr) & Cqcsr::Cqon::kMask, 0U);
  write(reg::kCqt, 0);
  write(reg::kCqcsr, Cqcsr::Cqen::kMask);
  EXPECT_TRUE(idle());
  fence();
  EXPECT_FALSE(idle()) << "the request is still outstanding";
  port_->complete_invalidation(sent[0].itag);
  EXPECT_TRUE(idle());
}

TEST_F(AtsCommands, ACompletionInsideASectionLeavesTheQueueToTheNextAdvance) {
  const auto sent = send_pending(1);
  fence();
  {
    const std::scoped_lock section(rcu::rcu_default_domain());
    port_->complete_invalidation(sent[0].itag);
    EXPECT_FALSE(idle());
  }
  iommu_->advance();
  EXPECT_TRUE(idle());
}

TEST_F(AtsCommands, TheDeadlineIsThatOfTheRequestThatTimesOutFirst) {
  std::vector<Iommu::TimePoint> told;
  iommu_->on_deadline([&](Iommu::TimePoint when) { told.push_back(when); });
  EXPECT_EQ(iommu_->next_deadline(), std::nullopt);
  const auto sent = send_pending(2);
  ASSERT_EQ(told.size(), 2U);
  EXPECT_GE(told[1], told[0]);
  EXPECT_EQ(iommu_->next_deadline(), told[0]);
  port_->complete_invalidation(sent[0].itag);
  EXPECT_EQ(iommu_->next_deadline(), told[1]);
  iommu_->advance(told[1] - std::chrono::nanoseconds(1));
  EXPECT_EQ(iommu_->next_deadline(), told[1]);
  iommu_->advance(told[1]);
  EXPECT_EQ(iommu_->next_deadline(), std::nullopt);
  fence();
  EXPECT_EQ(error_bits(), Cqcsr::CmdTo::kMask);
}

TEST_F(AtsCommands, ACompletionInsideASectionIsADeadlineOfNow) {
  const auto sent = send_pending(1);
  fence();
  std::vector<Iommu::TimePoint> told;
  iommu_->on_deadline([&](Iommu::TimePoint when) { told.push_back(when); });
  {
    const std::scoped_lock section(rcu::rcu_default_domain());
    port_->complete_invalidation(sent[0].itag);
  }
  EXPECT_EQ(interrupts(Iommu::Interrupt::kCommandQueue), 0) << "nothing has come of it yet";
  ASSERT_EQ(told.size(), 1U);
  EXPECT_LT(told[0], std::chrono::steady_clock::now());
  EXPECT_EQ(iommu_->next_deadline(), told[0]);
  iommu_->advance();
  EXPECT_TRUE(idle());
  EXPECT_EQ(iommu_->next_deadline(), std::nullopt);
}

TEST_F(AtsCommands, ARequestThatIsCompletedAtOnceIsNoDeadline) {
  std::vector<Iommu::TimePoint> told;
  iommu_->on_deadline([&](Iommu::TimePoint when) { told.push_back(when); });
  submit({invalidation()});
  fence();
  EXPECT_TRUE(told.empty());
}

/// Completes from inside the request, and goes on to say that it is pending.
class HastyDevice : public DeviceCallbacks {
 public:
  InvalidationReply invalidate(const AtsInvalidation& request) override {
    port->complete_invalidation(request.itag);
    return InvalidationReply::kPending;
  }
  void page_response(const PageResponse&) override {}
  std::unique_ptr<Port> port;
};

/// Has no translation cache.
class PlainDevice : public DeviceCallbacks {
  void page_response(const PageResponse&) override {}
};

TEST_F(AtsCommands, ADeviceMayCompleteBeforeItReturns) {
  HastyDevice hasty;
  hasty.port = *iommu_->attach(DeviceId{1}, hasty);
  PlainDevice plain;
  const auto port = *iommu_->attach(DeviceId{2}, plain);
  submit({ats_inval(1, {}, 0, kPageBytes), ats_inval(2, {}, 0, kPageBytes), iofence_c({})});
  EXPECT_TRUE(idle());
  EXPECT_EQ(error_bits(), 0U);
}

class ImpatientAtsCommands : public AtsCommands {
 protected:
  ImpatientAtsCommands() : AtsCommands(1ms) {}
};

// [iommu §4.1.4]
TEST_F(ImpatientAtsCommands, SoftwareThatPollsSeesTheTimeOut) {
  (void)send_pending(1);
  fence();
  while (error_bits() == 0) std::this_thread::yield();
  EXPECT_EQ(error_bits(), Cqcsr::CmdTo::kMask);
}

/// Completes from threads of its own, each request twice and now and then a wrong one as well.
class LateDevice : public DeviceCallbacks {
 public:
  InvalidationReply invalidate(const AtsInvalidation& request) override {
    const MutexLock lock(mutex_);
    requests_.push_back(request);
    return InvalidationReply::kPending;
  }
  void page_response(const PageResponse&) override {}

  /// Answers one request, if there is one.
  void answer() {
    AtsInvalidation request;
    {
      const MutexLock lock(mutex_);
      if (requests_.empty()) return;
      request = requests_.back();
      requests_.pop_back();
    }
    outstanding.fetch_sub(1);  // before the completion: the fence is behind all of them
    port->complete_invalidation(request.itag, 1, request.sequence);
    port->complete_invalidation(request.itag, 1, request.sequence);
  }
  std::unique_ptr<Port> port;
  std::atomic<int> outstanding{0};

 private:
  Mutex mutex_;
  std::vector<AtsInvalidation> requests_ TANDEM_GUARDED_BY(mutex_);
};

// Catches the planted fault iommu-fence-passes-invalidation.
TEST_F(AtsCommands, StressAFencePassesOnlyWhenNothingIsOutstanding) {
  LateDevice device;
  device.port = *iommu_->attach(DeviceId{1}, device);
  std::atomic<bool> stop{false};
  std::vector<std::jthread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        device.answer();
        std::this_thread::yield();
      }
    });
  }
  for (unsigned round = 0; round < 500; ++round) {
    device.outstanding = 4;
    submit({ats_inval(1, {}, 0, kPageBytes), ats_inval(1, {}, 0, kPageBytes),
            ats_inval(1, {}, 0, kPageBytes), ats_inval(1, {}, 0, kPageBytes), iofence_c({})});
    while (!idle()) std::this_thread::yield();
    ASSERT_EQ(device.outstanding, 0) << round;
    ASSERT_EQ(error_bits(), 0U);
  }
  stop = true;
  threads.clear();
  device.port.reset();
}

}  // namespace
}  // namespace tandem::iommu::detail
