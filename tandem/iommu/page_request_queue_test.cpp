// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

using Code = PageResponse::Code;
using Tc = DeviceContext::Tc;

class PageRequests : public Board {
 protected:
  static PageRequest request() {
    PageRequest request;
    request.address = Iova{0x7fff'1234'5000};
    request.pasid = kPasid;
    request.read = true;
    request.group = 0x155;
    return request;
  }
  /// The one response that the request brought about, if any.
  std::optional<PageResponse> respond(const PageRequest& asked) {
    port_->page_request(asked);
    const auto responses = device_.take_responses();
    EXPECT_LE(responses.size(), 1U);
    if (responses.empty()) return std::nullopt;
    EXPECT_EQ(responses[0].group, asked.group);
    return responses[0];
  }
  void expect_response(Code code, bool with_pasid) {
    const auto response = respond(request());
    ASSERT_TRUE(response.has_value());
    EXPECT_EQ(response->code, code);
    EXPECT_EQ(response->pasid, with_pasid ? std::optional{kPasid} : std::nullopt);
    PageRequest not_last = request();
    not_last.last = false;
    EXPECT_FALSE(respond(not_last).has_value()) << "needs no response";
    PageRequest stop_marker = request();
    stop_marker.read = false;
    EXPECT_FALSE(respond(stop_marker).has_value()) << "needs no response";
  }
  void expect_fault(Cause cause) {
    const auto faults = take_faults();
    ASSERT_FALSE(faults.empty());
    EXPECT_EQ(faults[0].cause(), cause);
    EXPECT_EQ(faults[0].type(), TransactionType::kMessageRequest);
    EXPECT_EQ(faults[0].iotval, kPageRequestMessageCode);
    EXPECT_EQ(faults[0].process_id(), kPasid.value);
  }
};

// [iommu §4.3]
TEST_F(PageRequests, ARecordHoldsTheMessage) {
  start();
  PageRequest first = request();
  first.write = true;
  first.privileged = true;
  first.execute = true;
  EXPECT_FALSE(respond(first).has_value()) << "software answers";
  PageRequest second = request();
  second.pasid.reset();
  second.privileged = true;
  second.execute = true;
  second.last = false;
  EXPECT_FALSE(respond(second).has_value());
  EXPECT_EQ(interrupts(Iommu::Interrupt::kPageRequestQueue), 1);
  const auto records = take_page_requests();
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[0].device_id(), kDevice.value);
  EXPECT_EQ(records[0].process_id(), kPasid.value);
  EXPECT_TRUE(records[0].privileged() && records[0].execute());
  EXPECT_TRUE(records[0].read() && records[0].write() && records[0].last());
  EXPECT_EQ(records[0].group(), 0x155);
  EXPECT_EQ(records[0].address(), first.address.value);
  EXPECT_EQ(records[1].process_id(), std::nullopt);
  EXPECT_FALSE(records[1].privileged() || records[1].execute()) << "0 without a PASID";
  EXPECT_FALSE(records[1].last());
  EXPECT_EQ(iommu_->stats().page_requests, 2U);
}

// [iommu §3.7]
TEST_F(PageRequests, OffIsAResponseFailure) {
  enable_queues();
  expect_response(Code::kResponseFailure, true);
  expect_fault(Cause::kAllInboundDisallowed);
}

// [iommu §3.7]
TEST_F(PageRequests, BareIsAnInvalidRequest) {
  enable_queues();
  write(reg::kDdtp, Ddtp::make(Ddtp::ModeValue::kBare), 8);
  expect_response(Code::kInvalidRequest, false);
  expect_fault(Cause::kTtypeBlocked);
}

// [iommu §3.7]
TEST_F(PageRequests, ADeviceContextThatCannotBeUsedIsAResponseFailure) {
  start();
  store(device_slot(kDevice), 0);
  expect_response(Code::kResponseFailure, true);
  expect_fault(Cause::kDdtNotValid);
  store(device_slot(kDevice), Tc::V::kMask | Tc::Sxl::kMask);
  expect_response(Code::kResponseFailure, true);
  expect_fault(Cause::kDdtMisconfigured);
  write(reg::kDdtp, 0, 8);
  write(reg::kDdtp, Ddtp::make(Ddtp::ModeValue::k1Lvl, kHolePpn), 8);
  expect_response(Code::kResponseFailure, true);
  expect_fault(Cause::kDdtLoadFault);
}

// [iommu §3.7]
TEST_F(PageRequests, ADeviceIdThatIsTooWideIsAnInvalidRequest) {
  start();
  FakeDevice callbacks;
  const auto port = std::move(*iommu_->attach(DeviceId{0x80}, callbacks));
  port->page_request(request());
  const auto responses = callbacks.take_responses();
  ASSERT_EQ(responses.size(), 1U);
  EXPECT_EQ(responses[0].code, Code::kInvalidRequest);
}

// [iommu §3.7]
TEST_F(PageRequests, DisabledPageRequestsAreInvalidRequests) {
  start();
  context_.tc &= ~Tc::EnPri::kMask;
  set_device(kDevice, context_);
  expect_response(Code::kInvalidRequest, false);
  expect_fault(Cause::kTtypeBlocked);
  context_.tc |= Tc::Dtf::kMask;
  set_device(kDevice, context_);
  forget_contexts();
  expect_response(Code::kInvalidRequest, false);
  EXPECT_TRUE(take_faults().empty());
}

// [iommu §3.7]
TEST_F(PageRequests, ADisabledQueueIsAResponseFailureWithoutAFault) {
  start();
  write(reg::kPqcsr, 0);
  expect_response(Code::kResponseFailure, true);
  EXPECT_TRUE(take_faults().empty());
}

// [iommu §3.7]
TEST_F(PageRequests, AQueueThatCannotBeWrittenIsAResponseFailure) {
  start();
  write(reg::kPqcsr, 0);
  write(reg::kPqb, QueueBase::make(kLog2Queue, kHolePpn), 8);
  write(reg::kPqcsr, Pqcsr::Pqen::kMask | Pqcsr::Pie::kMask);
  expect_response(Code::kResponseFailure, true);
  EXPECT_NE(read(reg::kPqcsr) & Pqcsr::Pqmf::kMask, 0U);
  EXPECT_EQ(interrupts(Iommu::Interrupt::kPageRequestQueue), 1);
  EXPECT_TRUE(take_faults().empty());
}

// [iommu §3.7]
TEST_F(PageRequests, OverflowIsAnsweredSuccessUntilSoftwareClearsIt) {
  start();
  constexpr unsigned kRoom = (1U << kLog2Queue) - 1;
  for (unsigned i = 0; i < kRoom; ++i) EXPECT_FALSE(respond(request()).has_value());
  expect_response(Code::kSuccess, false);
  EXPECT_NE(read(reg::kPqcsr) & Pqcsr::Pqof::kMask, 0U);
  EXPECT_EQ(take_page_requests().size(), kRoom);
  expect_response(Code::kSuccess, false);
  write(reg::kPqcsr, Pqcsr::Pqen::kMask | Pqcsr::Pie::kMask | Pqcsr::Pqof::kMask);
  EXPECT_FALSE(respond(request()).has_value());
  EXPECT_EQ(take_page_requests().size(), 1U);
  EXPECT_TRUE(take_faults().empty());
}

// [iommu §3.7]
TEST_F(PageRequests, PrprPutsThePasidIntoTheAnswer) {
  start(Tc::Prpr::make(1));
  for (unsigned i = 1; i < 1U << kLog2Queue; ++i) port_->page_request(request());
  expect_response(Code::kSuccess, true);
  PageRequest no_pasid = request();
  no_pasid.pasid.reset();
  EXPECT_EQ(respond(no_pasid)->pasid, std::nullopt);
}

// [iommu §3.7]
TEST_F(PageRequests, AFailureWithoutAPasidIsAnsweredWithoutOne) {
  enable_queues();
  PageRequest no_pasid = request();
  no_pasid.pasid.reset();
  const auto response = respond(no_pasid);
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->code, Code::kResponseFailure);
  EXPECT_EQ(response->pasid, std::nullopt);
}

// [iommu §3.7]
TEST_F(PageRequests, TheHandlerMayAnswerFromTheInterrupt) {
  start();
  iommu_->on_interrupt([&](Iommu::Interrupt cause) {
    if (cause != Iommu::Interrupt::kPageRequestQueue) return;
    write(reg::kIpsr, Ipsr::Pip::kMask);
    for (const auto& record : take_page_requests()) {
      submit({ats_prgr(record.device_id(), record.process_id(), record.group(), 0)});
    }
  });
  for (int i = 0; i < 20; ++i) {
    const auto response = respond(request());
    ASSERT_TRUE(response.has_value());
    EXPECT_EQ(response->code, Code::kSuccess);
    EXPECT_EQ(response->pasid, kPasid);
  }
}

}  // namespace
}  // namespace tandem::iommu::detail
