// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/device.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "tandem/trace/trace.hpp"
#include "tandem/uacce/detail/raw_queue.hpp"

namespace tandem::uacce {
namespace {

using detail::RawQueue;

/// Copies src to dst by Input and Output; param 1: by snapshot and scratch.
class CopyEngine final : public Engine {
 public:
  DeviceTraits traits() const override {
    DeviceTraits traits;
    traits.name = "copy";
    traits.api = "tandem_test_v1";
    traits.algorithms = {"copy"};
    return traits;
  }
  std::unique_ptr<Worker> make_worker() override { return std::make_unique<CopyWorker>(); }

 private:
  class CopyWorker final : public Worker {
    Completion execute(const tandem_descriptor& descriptor, const pcie::AddressSpace& space,
                       Session*) override {
      const bool copy = descriptor.param == 1;
      auto input = Input::fetch(space, descriptor.src, descriptor.src_len, copy, in_);
      if (!input) return Completion::from_fault(input.error(), 0);
      auto output = Output::prepare(space, descriptor.dst, descriptor.dst_len, !copy, out_);
      if (!output) return Completion::from_fault(output.error(), 0);
      std::copy(input->bytes().begin(), input->bytes().end(), output->bytes().begin());
      const bool input_in_place = input->in_place();
      const auto written = output->commit(descriptor.src_len, std::move(*input));
      if (written.fault) {
        return Completion::from_fault(*written.fault,
                                      static_cast<std::uint32_t>(written.done_bytes));
      }
      Completion completion;
      completion.done = static_cast<std::uint32_t>(written.done_bytes);
      (input_in_place ? completion.bytes_zero_copy : completion.bytes_copied) += descriptor.src_len;
      (output->in_place() ? completion.bytes_zero_copy : completion.bytes_copied) +=
          descriptor.src_len;
      return completion;
    }
    std::vector<std::byte> in_, out_;
  };
};

class DeviceTest : public testing::Test {
 protected:
  DeviceTest() {
    auto created = Framework::create({});
    TANDEM_CHECK(created);
    framework_ = std::move(*created);
    TANDEM_CHECK(framework_->add_device(std::make_unique<CopyEngine>()));
    MmAccess access;
    access.kind = MmAccess::Kind::kSelf;
    auto connected = framework_->connect(1, std::move(access), false);
    TANDEM_CHECK(connected);
    client_ = std::move(*connected);
    queue_.emplace(*client_, "copy");
  }
  tandem_completion copy(const void* from, void* to, std::uint32_t length, bool by_copy) {
    return copy(reinterpret_cast<std::uint64_t>(from), reinterpret_cast<std::uint64_t>(to), length,
                by_copy);
  }
  tandem_completion copy(std::uint64_t from, std::uint64_t to, std::uint32_t length, bool by_copy) {
    tandem_descriptor descriptor{};
    descriptor.opcode = TANDEM_OP_COPY;
    descriptor.param = by_copy ? 1 : 0;
    descriptor.src = from;
    descriptor.dst = to;
    descriptor.src_len = descriptor.dst_len = length;
    queue_->write(descriptor);
    queue_->publish();
    const auto completion = queue_->wait();
    TANDEM_CHECK(completion);
    return *completion;
  }

  std::unique_ptr<Framework> framework_;
  std::unique_ptr<Client> client_;
  std::optional<RawQueue> queue_;
};

TEST_F(DeviceTest, ReservedMemoryIsReachedInPlace) {
  auto reserved = client_->reserve(64 * kPageSize);
  ASSERT_TRUE(reserved);
  auto mapped = Mapping::shared(reserved->fd.get(), reserved->size_bytes);
  ASSERT_TRUE(mapped);
  ASSERT_TRUE(
      client_->attach_reserved(reserved->id, reinterpret_cast<std::uint64_t>(mapped->data())));
  std::byte* const half = mapped->data() + 32 * kPageSize;
  std::memset(mapped->data(), 0x5a, 32 * kPageSize);
  // The first operation takes the page faults, of which one operand may be copied.
  ASSERT_EQ(copy(mapped->data(), half, 32 * kPageSize, false).status, TANDEM_STATUS_OK);
  const auto completion = copy(mapped->data(), half, 32 * kPageSize, false);
  EXPECT_EQ(completion.status, TANDEM_STATUS_OK);
  EXPECT_TRUE(completion.flags & TANDEM_CPL_ZERO_COPY);
  EXPECT_EQ(std::memcmp(mapped->data(), half, 32 * kPageSize), 0);
  // The same, when the engine insists on copies.
  std::memset(mapped->data(), 0x11, 100);
  EXPECT_FALSE(copy(mapped->data(), half, 100, true).flags & TANDEM_CPL_ZERO_COPY);
  EXPECT_EQ(std::memcmp(mapped->data(), half, 100), 0);
  EXPECT_GT(client_->stats().translations, 0u);
}

TEST_F(DeviceTest, OperandsBehindDifferentPageFaultsAreReachedInOneOperation) {
  constexpr std::size_t kBlock = std::size_t{2} << 20;  // what one page request maps at most here
  constexpr std::size_t kLength = 8 * kPageSize;
  auto reserved = client_->reserve(kBlock + 2 * kLength);
  ASSERT_TRUE(reserved);
  auto mapped = Mapping::shared(reserved->fd.get(), reserved->size_bytes);
  ASSERT_TRUE(mapped);
  const auto start = reinterpret_cast<std::uint64_t>(mapped->data());
  ASSERT_TRUE(client_->attach_reserved(reserved->id, start));
  const std::uint64_t boundary = (start + kLength + kBlock - 1) & ~(kBlock - 1);
  std::byte* const to = mapped->data() + (boundary - start);
  std::byte* const from = to - kLength;
  std::memset(from, 0x5a, kLength);
  const auto first = copy(from, to, kLength, false);
  EXPECT_EQ(first.status, TANDEM_STATUS_OK)
      << std::hex << first.fault_address << " of " << boundary;
  EXPECT_EQ(std::memcmp(from, to, kLength), 0);
  EXPECT_TRUE(copy(from, to, kLength, false).flags & TANDEM_CPL_ZERO_COPY);
}

TEST_F(DeviceTest, OrdinaryMemoryIsReachedByCopyHoweverMuchScratchThereWas) {
  for (const std::size_t size : {std::size_t{3} << 20, std::size_t{5000}, std::size_t{1}}) {
    std::vector<char> from(size, static_cast<char>('a' + size % 20));
    std::vector<char> to(size);
    const auto completion = copy(from.data(), to.data(), static_cast<std::uint32_t>(size), false);
    EXPECT_EQ(completion.status, TANDEM_STATUS_OK);
    EXPECT_FALSE(completion.flags & TANDEM_CPL_ZERO_COPY);
    EXPECT_EQ(from, to);
  }
  EXPECT_EQ(client_->stats().bytes_copied, 2 * ((3u << 20) + 5000 + 1));
}

TEST_F(DeviceTest, FaultsNameTheFirstByteThatCouldNotBeAccessed) {
  auto pages = Mapping::anonymous(3 * kPageSize);
  ASSERT_TRUE(pages);
  ASSERT_EQ(::mprotect(pages->data() + 2 * kPageSize, kPageSize, PROT_NONE), 0);
  const auto end = reinterpret_cast<std::uint64_t>(pages->data() + 2 * kPageSize);
  std::vector<char> other(kPageSize);
  const auto there = reinterpret_cast<std::uint64_t>(other.data());
  const auto unreadable = copy(end - 100, there, 200, false);
  EXPECT_EQ(unreadable.status, TANDEM_STATUS_FAULT);
  EXPECT_EQ(unreadable.fault_address, end);
  const auto unwritable = copy(there, end - 100, 200, true);
  EXPECT_EQ(unwritable.status, TANDEM_STATUS_FAULT);
  EXPECT_EQ(unwritable.fault_address, end);
  EXPECT_EQ(unwritable.done, 100u);
  EXPECT_EQ(copy(~std::uint64_t{0} - 10, there, 200, false).status, TANDEM_STATUS_BAD_RANGE);
  EXPECT_EQ(copy(there, ~std::uint64_t{0} - 10, 200, true).status, TANDEM_STATUS_BAD_RANGE);
  EXPECT_EQ(client_->stats().faults, 2u);
}

TEST_F(DeviceTest, OperationsOnOrdinaryMemoryAndTheirPageFaultsAreTraced) {
  using trace::Event;
  auto pages = Mapping::anonymous(2 * kPageSize);
  ASSERT_TRUE(pages);
  ASSERT_EQ(::mprotect(pages->data() + kPageSize, kPageSize, PROT_NONE), 0);
  const auto good = reinterpret_cast<std::uint64_t>(pages->data());
  trace::enable(trace::kAllCategories);
  EXPECT_EQ(copy(good, good + 100, 100, false).status, TANDEM_STATUS_OK);
  EXPECT_EQ(copy(good + kPageSize, good, 100, false).status, TANDEM_STATUS_FAULT);
  const auto records = trace::snapshot();  // completions are written after the events
  trace::enable(trace::kNoCategories);
  EXPECT_EQ(trace::dropped(), 0u);
  const std::uint64_t pasid = client_->pasid().value;
  std::vector<trace::Record> engine;
  for (const auto& record : records) {
    const auto category = trace::event_info(record.event).category;
    if (category == trace::Category::kEngine || category == trace::Category::kFault) {
      engine.push_back(record);
    }
  }
  auto next = [&, at = std::size_t{0}](Event event) mutable -> const trace::Record* {
    while (at < engine.size() && engine[at].event != event) ++at;
    return at < engine.size() ? &engine[at] : nullptr;
  };
  const auto* const begin = next(Event::kOperationBegin);
  ASSERT_NE(begin, nullptr);
  EXPECT_EQ(begin->arguments[0], queue_->id());
  EXPECT_EQ(begin->arguments[1], TANDEM_OP_COPY);
  EXPECT_EQ(begin->arguments[2], pasid);
  const auto* const end = next(Event::kOperationEnd);
  ASSERT_NE(end, nullptr);
  EXPECT_EQ(end->arguments[2], TANDEM_STATUS_OK);
  EXPECT_EQ(end->arguments[3], 100u);
  EXPECT_GE(end->time_ns, begin->time_ns);
  ASSERT_NE(next(Event::kOperationBegin), nullptr);
  for (const Event event : {Event::kPageRequest, Event::kPageServiceBegin}) {
    const auto* const asked = next(event);
    ASSERT_NE(asked, nullptr) << trace::event_info(event).name;
    EXPECT_EQ(asked->arguments[0], pasid);
    EXPECT_EQ(asked->arguments[1], good + kPageSize);
  }
  const auto* const served = next(Event::kPageServiceEnd);
  ASSERT_NE(served, nullptr);
  EXPECT_EQ(served->arguments[2],
            static_cast<std::uint64_t>(iommu::PageResponse::Code::kInvalidRequest));
  const auto* const answered = next(Event::kPageResponse);
  ASSERT_NE(answered, nullptr);
  EXPECT_EQ(answered->arguments[1],
            static_cast<std::uint64_t>(iommu::PageResponse::Code::kInvalidRequest));
  const auto* const fault = next(Event::kOperationFault);
  ASSERT_NE(fault, nullptr);
  EXPECT_EQ(fault->arguments[0], pasid);
  EXPECT_EQ(fault->arguments[1], good + kPageSize);
  const auto* const failed = next(Event::kOperationEnd);
  ASSERT_NE(failed, nullptr);
  EXPECT_EQ(failed->arguments[2], TANDEM_STATUS_FAULT);
}

}  // namespace
}  // namespace tandem::uacce
