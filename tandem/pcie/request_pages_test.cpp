// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <latch>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "tandem/pcie/detail/test_bench.hpp"
#include "tandem/pcie/pcie.hpp"

namespace tandem::pcie {
namespace {

using namespace std::chrono_literals;
using Bench = detail::TestBench;
using Code = iommu::PageResponse::Code;
using Kind = Message::Kind;
using Reason = DmaFault::Reason;

constexpr std::uint64_t kPage = kPageSize;
constexpr Pasid kPasid{1};
constexpr Pasid kOther{2};
constexpr std::uint64_t kVa = 0x7f12'3456'7000;

class RequestPages : public testing::Test {
 protected:
  RequestPages() {
    bench.bind(kPasid);
    bench.bind(kOther);
    bench.on_page_request = [this](const iommu::PageRequestRecord& record) {
      const std::scoped_lock lock(mutex_);
      records.push_back(record);
      if (record.address() == refused) return Code::kInvalidRequest;
      bench.map(Pasid{*record.process_id()}, record.address(), bench.allocate());
      return Code::kSuccess;
    };
  }
  Endpoint& open(Endpoint::Options options = {}) {
    endpoint_ = bench.endpoint(options);
    endpoint_->set_tap([this](const Message& message) {
      const std::scoped_lock lock(mutex_);
      messages.push_back(message);
    });
    return *endpoint_;
  }
  std::size_t count(Kind kind) {
    const std::scoped_lock lock(mutex_);
    return static_cast<std::size_t>(std::ranges::count(messages, kind, &Message::kind));
  }
  DmaResult read_word(Pasid pasid, std::uint64_t at = kVa) {
    std::array<std::byte, 8> word{};
    return endpoint_->space(pasid).read({at}, word);
  }

  Bench bench;
  std::vector<iommu::PageRequestRecord> records;
  std::vector<Message> messages;
  std::uint64_t refused = 0;
  std::unique_ptr<Endpoint> endpoint_;
  std::mutex mutex_;
};

TEST_F(RequestPages, SeveralPagesAreOneGroupWithOneResponse) {
  const AddressSpace space = open().space(kPasid);
  ASSERT_TRUE(space.request_pages({kVa + 100}, 2 * kPage, Access::kWrite));
  ASSERT_EQ(records.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(records[i].process_id(), kPasid.value);
    EXPECT_EQ(records[i].address(), kVa + i * kPage);
    EXPECT_EQ(records[i].group(), records[0].group());
    EXPECT_EQ(records[i].last(), i == 2);
    EXPECT_TRUE(records[i].write());
    EXPECT_FALSE(records[i].read());
  }
  EXPECT_EQ(count(Kind::kPageRequest), 3U);
  EXPECT_EQ(count(Kind::kPageResponse), 1U);
  EXPECT_EQ(endpoint_->stats().page_requests, 3U);
  std::vector<std::byte> bytes(2 * kPage);
  EXPECT_TRUE(space.write({kVa + 100}, bytes).ok());
  EXPECT_EQ(records.size(), 3U) << "they are present now";
}

TEST_F(RequestPages, OneRefusedPageRefusesItsGroup) {
  refused = kVa + kPage;
  const AddressSpace space = open().space(kPasid);
  const auto result = space.request_pages({kVa}, 3 * kPage, Access::kRead);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().reason, Reason::kNotPermitted);
  EXPECT_EQ(records.size(), 3U);
}

TEST_F(RequestPages, RangesThatWrapOrAreEmptyAreNotSent) {
  const AddressSpace space = open().space(kPasid);
  EXPECT_EQ(space.request_pages({~std::uint64_t{0}}, 2, Access::kRead).error().reason,
            Reason::kWraps);
  EXPECT_TRUE(space.request_pages({kVa}, 0, Access::kRead));
  EXPECT_TRUE(records.empty());
}

TEST_F(RequestPages, AGroupIsNoLargerThanTheCredits) {
  const AddressSpace space = open({.page_request_capacity = 2}).space(kPasid);
  ASSERT_TRUE(space.request_pages({kVa}, 5 * kPage, Access::kRead));
  ASSERT_EQ(records.size(), 5U);
  std::vector<bool> last;
  for (const auto& record : records) last.push_back(record.last());
  EXPECT_EQ(last, (std::vector{false, true, false, true, true}));
}

TEST_F(RequestPages, WhoLacksCreditsWaitsForThem) {
  open({.page_request_capacity = 1});
  std::vector<std::jthread> threads;
  for (std::uint64_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (std::uint64_t j = 0; j < 8; ++j) {
        EXPECT_TRUE(read_word(i % 2 == 0 ? kPasid : kOther, kVa + (i * 8 + j) * kPage).ok());
      }
    });
  }
  threads.clear();
  EXPECT_EQ(records.size(), 32U);
}

TEST_F(RequestPages, WithoutCreditsThereIsNoService) {
  open({.page_request_timeout = 5ms, .page_request_capacity = 0});
  EXPECT_EQ(read_word(kPasid).fault->reason, Reason::kNoService);
  EXPECT_EQ(count(Kind::kPageRequest), 0U);
}

TEST_F(RequestPages, AResponseFailureEndsPageRequests) {
  open();
  bench.on_page_request = [](const auto&) { return Code::kResponseFailure; };
  EXPECT_EQ(read_word(kPasid).fault->reason, Reason::kNoService);
  EXPECT_EQ(count(Kind::kPageRequest), 1U);
  EXPECT_EQ(read_word(kOther).fault->reason, Reason::kNoService);
  EXPECT_FALSE(endpoint_->space(kOther).send_stop_marker());
  EXPECT_EQ(count(Kind::kPageRequest), 1U) << "nothing is sent";
}

// [iommu §3.7]
TEST_F(RequestPages, AStopMarkerIsAMessageWithoutAResponse) {
  open();
  EXPECT_TRUE(endpoint_->space(kPasid).send_stop_marker());
  EXPECT_EQ(bench.stop_markers, 1);
  ASSERT_EQ(count(Kind::kPageRequest), 1U);
  EXPECT_EQ(messages[0].pasid, kPasid);
  EXPECT_TRUE(messages[0].last);
  EXPECT_FALSE(messages[0].readable || messages[0].writable);
  EXPECT_FALSE(endpoint_->space(std::nullopt).send_stop_marker()) << "it is about a PASID";
}

TEST_F(RequestPages, WithoutPriNoneIsSent) {
  open({.pri = false});
  const AddressSpace space = endpoint_->space(kPasid);
  EXPECT_EQ(space.request_pages({kVa}, 1, Access::kRead).error().reason, Reason::kNoService);
  EXPECT_FALSE(space.send_stop_marker());
  EXPECT_EQ(count(Kind::kPageRequest), 0U);
  EXPECT_EQ(bench.stop_markers, 0);
}

TEST_F(RequestPages, WithoutThePasidCapabilityNoMessageCarriesOne) {
  open({.pasid = false});
  const AddressSpace space = endpoint_->space(kPasid);
  EXPECT_EQ(read_word(kPasid).fault->reason, Reason::kDisabled);
  EXPECT_EQ(space.map({kVa}, 8, Access::kRead).error().reason, Reason::kDisabled);
  EXPECT_EQ(space.request_pages({kVa}, 1, Access::kRead).error().reason, Reason::kDisabled);
  EXPECT_FALSE(space.send_stop_marker());
  endpoint_.reset();
  open({.pasid = false, .ats = false, .pri = false});
  EXPECT_EQ(read_word(kPasid).fault->reason, Reason::kDisabled);
  EXPECT_TRUE(messages.empty());
}

}  // namespace
}  // namespace tandem::pcie
