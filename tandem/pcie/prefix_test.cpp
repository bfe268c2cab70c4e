// SPDX-License-Identifier: Apache-2.0
// What a PASID prefix asks for beside the PASID: privilege, and to execute.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "tandem/pcie/detail/test_bench.hpp"
#include "tandem/pcie/pcie.hpp"
#include "tandem/pcie/spec.hpp"

namespace tandem::pcie {
namespace {

using Bench = detail::TestBench;
using Code = iommu::PageResponse::Code;
using Permission = Bench::Permission;
using Reason = DmaFault::Reason;

constexpr Pasid kPasid{1};
constexpr std::uint64_t kCode = 0x10'0000;
constexpr std::uint64_t kUser = 0x20'0000;
constexpr std::uint64_t kKernel = 0x30'0000;

/// A process with code, data, and a page of its supervisor; with and without ATS.
class Prefix : public testing::TestWithParam<bool> {
 protected:
  Prefix() {
    bench_.bind(kPasid, /*supervisor=*/true);
    for (const auto& [at, permission] : {std::pair{kCode, Permission::kReadExecute},
                                         {kUser, Permission::kReadWrite},
                                         {kKernel, Permission::kSupervisor}}) {
      const std::uint64_t physical = bench_.allocate();
      std::memset(bench_.host(physical), static_cast<int>(at >> 20), kPageSize);
      bench_.map(kPasid, at, physical, permission);
    }
    open({.execute = true, .privileged = true});
  }
  void open(Endpoint::Options options) {
    options.ats = options.pri = GetParam();
    endpoint_.reset();
    endpoint_ = bench_.endpoint(std::move(options));
  }
  AddressSpace user() { return endpoint_->space(kPasid); }
  AddressSpace supervisor() { return endpoint_->supervisor_space(kPasid); }
  static std::optional<Reason> reason(const DmaResult& result) {
    return result.fault ? std::optional(result.fault->reason) : std::nullopt;
  }

  Bench bench_;
  std::unique_ptr<Endpoint> endpoint_;
  std::array<std::byte, 16> bytes_{};
};

INSTANTIATE_TEST_SUITE_P(Ats, Prefix, testing::Bool(),
                         [](const auto& ats) { return ats.param ? "Enabled" : "Disabled"; });

/// What takes page requests or windows.
class PrefixWithAts : public Prefix {};
INSTANTIATE_TEST_SUITE_P(Ats, PrefixWithAts, testing::Values(true));

// [iommu §3.3] [PCIe "PASID TLP Prefix"]
TEST_P(Prefix, InstructionsAreFetchedFromExecutablePagesOnly) {
  for (int i = 0; i < 2; ++i) {  // from the tables, then from the cache
    EXPECT_EQ(reason(user().fetch({kCode}, bytes_)), std::nullopt);
    EXPECT_EQ(bytes_[0], std::byte{1});
    EXPECT_EQ(reason(user().read({kCode}, bytes_)), std::nullopt);
    EXPECT_EQ(reason(user().read({kUser}, bytes_)), std::nullopt);
    EXPECT_EQ(reason(user().fetch({kUser}, bytes_)), Reason::kNotPermitted);
    EXPECT_EQ(reason(user().write({kCode}, bytes_)), Reason::kNotPermitted);
  }
  EXPECT_TRUE(dma_rw(*endpoint_, kPasid, {kCode}, bytes_, Access::kExecute).ok());
  EXPECT_FALSE(dma_rw(*endpoint_, kPasid, {kUser}, bytes_, Access::kExecute).ok());
}

// [iommu §3.3]
TEST_P(Prefix, ASupervisorAndItsUserSeeTheirOwnPages) {
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(reason(supervisor().write({kKernel}, bytes_)), std::nullopt);
    EXPECT_EQ(reason(user().read({kKernel}, bytes_)), Reason::kNotPermitted);
    EXPECT_EQ(reason(user().write({kUser}, bytes_)), std::nullopt);
    EXPECT_EQ(reason(supervisor().read({kUser}, bytes_)), Reason::kNotPermitted) << "no SUM";
  }
}

TEST_P(Prefix, BothForgetAPageThatIsInvalidated) {
  for (const std::uint64_t at : {kUser, kKernel}) {
    const AddressSpace space = at == kUser ? user() : supervisor();
    ASSERT_TRUE(space.read({at}, bytes_).ok());
    ASSERT_TRUE(bench_.unmap(kPasid, at));
    EXPECT_FALSE(space.read({at}, bytes_).ok());
  }
}

TEST_P(Prefix, IsNotSentWithoutTheCapabilityOrWithoutAPasid) {
  open({});
  EXPECT_EQ(reason(user().fetch({kCode}, bytes_)), Reason::kDisabled);
  EXPECT_EQ(reason(supervisor().read({kKernel}, bytes_)), Reason::kDisabled);
  EXPECT_EQ(reason(user().read({kCode}, bytes_)), std::nullopt);
  open({.execute = true, .privileged = true});
  EXPECT_EQ(reason(endpoint_->space(std::nullopt).fetch({Bench::kArena}, bytes_)),
            Reason::kDisabled);
}

TEST_P(Prefix, IsNotSentOnceSoftwareForbidsIt) {
  ASSERT_TRUE(user().fetch({kCode}, bytes_).ok());
  ASSERT_TRUE(supervisor().read({kKernel}, bytes_).ok());
  // Right behind the common header is the first extended capability, PASID. ATS is switched off
  // and on, because PASID Control stands while it is enabled.
  constexpr std::uint32_t kControl = config::kExtendedCapabilities + config::kPasidControl;
  constexpr std::uint32_t kAts =
      config::kExtendedCapabilities + config::kPasidBytes + config::kAtsControl;
  const auto set = [&](std::uint32_t control) {
    if (GetParam()) endpoint_->config_write(kAts, 0, 2);
    endpoint_->config_write(kControl, control, 2);
    if (GetParam()) {
      endpoint_->config_write(kAts, static_cast<std::uint32_t>(config::AtsControl::Enable::kMask),
                              2);
    }
  };
  set(1);
  EXPECT_EQ(reason(user().fetch({kCode}, bytes_)), Reason::kDisabled);
  EXPECT_EQ(reason(supervisor().read({kKernel}, bytes_)), Reason::kDisabled);
  set(1 | static_cast<std::uint32_t>(config::PasidControl::Execute::kMask));
  EXPECT_EQ(reason(user().fetch({kCode}, bytes_)), std::nullopt);
  EXPECT_EQ(reason(supervisor().read({kKernel}, bytes_)), Reason::kDisabled);
}

TEST_P(PrefixWithAts, PageRequestsSayWhatIsAskedFor) {
  std::vector<iommu::PageRequestRecord> records;
  bench_.on_page_request = [&](const auto& record) {
    records.push_back(record);
    return Code::kInvalidRequest;
  };
  std::vector<Message> seen;
  endpoint_->set_tap([&](const Message& message) { seen.push_back(message); });
  EXPECT_FALSE(user().fetch({kCode + kPageSize}, bytes_).ok());
  EXPECT_FALSE(supervisor().write({kKernel + kPageSize}, bytes_).ok());
  EXPECT_FALSE(user().request_pages({kUser + kPageSize}, 1, Access::kExecute).has_value());
  endpoint_->set_tap({});
  ASSERT_EQ(records.size(), 3U);
  for (const std::size_t i : {0U, 2U}) {
    EXPECT_TRUE(records[i].execute() && records[i].read() && !records[i].write());
    EXPECT_FALSE(records[i].privileged());
  }
  EXPECT_TRUE(records[1].privileged() && records[1].write() && !records[1].execute());
  const auto of = [&](Message::Kind kind, bool privileged) {
    return std::ranges::any_of(seen, [&](const Message& message) {
      return message.kind == kind && message.privileged == privileged &&
             message.executable == !privileged;
    });
  };
  for (const auto kind : {Message::Kind::kTranslationRequest, Message::Kind::kPageRequest}) {
    EXPECT_TRUE(of(kind, false) && of(kind, true));
  }
}

TEST_P(PrefixWithAts, AWindowMayBeOfInstructions) {
  {
    const auto code = user().map({kCode}, 64, Access::kExecute);
    ASSERT_TRUE(code.has_value());
    EXPECT_EQ(code->bytes()[0], std::byte{1});
  }
  EXPECT_EQ(user().map({kUser}, 64, Access::kExecute).error().reason, Reason::kNotPermitted);
}

}  // namespace
}  // namespace tandem::pcie
