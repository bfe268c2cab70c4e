// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/checked.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace tandem::rcu {
namespace {

using ::testing::HasSubstr;

static_assert(sizeof(rcu_ptr<int>) == sizeof(int*));
static_assert(noexcept(dereference(std::declval<const rcu_ptr<int>&>())));

struct Seen {
  std::string what;
  std::string file;
  unsigned line;
  std::size_t frames;
};
std::vector<Seen> reports;

/// Collects reports instead of printing them.
class Checked : public ::testing::Test {
 protected:
  Checked() {
    reports.clear();
    before_ = set_check_handler([](const check_report& report) noexcept {
      reports.push_back({report.what, report.where.file, report.where.line, report.stack.size()});
    });
  }
  ~Checked() override { set_check_handler(before_); }

  /// As many as expected where the build checks, none elsewhere.
  static void expect_reports(std::size_t count) {
    EXPECT_EQ(reports.size(), kChecking ? count : 0);
    reports.clear();
  }

  int value_ = 7;
  rcu_ptr<int> pointer_{&value_};

 private:
  check_handler before_;
};

TEST_F(Checked, DereferenceInASectionIsSilent) {
  const std::scoped_lock section(rcu_default_domain());
  EXPECT_EQ(*dereference(pointer_), 7);
  expect_reports(0);
}

TEST_F(Checked, DereferenceOutsideIsReportedWithItsPlaceAndStackAndStillMade) {
  const unsigned line = __LINE__ + 1;
  EXPECT_EQ(*dereference(pointer_), 7);
  if (kChecking) {
    ASSERT_EQ(reports.size(), 1);
    EXPECT_THAT(reports[0].what, HasSubstr("outside a section"));
    EXPECT_THAT(reports[0].file, HasSubstr("checked_test.cpp"));
    EXPECT_EQ(reports[0].line, line);
    EXPECT_GT(reports[0].frames, 1);
  }
  reports.clear();
  EXPECT_EQ(*dereference(pointer_, false), 7);
  expect_reports(1);
}

TEST_F(Checked, ASectionOfAnotherDomainDoesNotCount) {
  rcu_domain other;
  {
    const std::scoped_lock section(other);
    (void)dereference(pointer_);
    expect_reports(1);
    (void)dereference(pointer_, other);
    (void)dereference(pointer_, false, other);
    expect_reports(0);
  }
  const std::scoped_lock section(rcu_default_domain());
  (void)dereference(pointer_, other);
  expect_reports(1);
}

TEST_F(Checked, ASectionThatEndedDoesNotCount) {
  { const std::scoped_lock section(rcu_default_domain()); }
  (void)dereference(pointer_);
  expect_reports(1);
}

TEST_F(Checked, AHeldMutexStandsForASection) {
  Mutex mutex;
  (void)dereference(pointer_, held(mutex));
  expect_reports(1);
  const MutexLock lock(mutex);
  (void)dereference(pointer_, held(mutex));
  (void)dereference_protected(pointer_, held(mutex));
  expect_reports(0);
  // Held, but not by that thread.
  std::thread([&] { (void)dereference(pointer_, held(mutex)); }).join();
  expect_reports(1);
}

TEST_F(Checked, SoDoesAStandardMutex) {
  std::mutex mutex;
  (void)dereference(pointer_, held(mutex));
  expect_reports(1);
  const std::scoped_lock lock(mutex);
  (void)dereference(pointer_, held(mutex));
  (void)dereference_protected(pointer_, held(mutex));
  expect_reports(0);
}

TEST_F(Checked, ASectionDoesNotProtectAnUpdater) {
  Mutex mutex;
  const std::scoped_lock section(rcu_default_domain());
  (void)dereference_protected(pointer_, held(mutex));
  expect_reports(1);
}

TEST_F(Checked, TheConditionIsEvaluatedInCheckingBuildsOnly) {
  int evaluated = 0;
  const auto condition = [&] {
    ++evaluated;
    return true;
  };
  (void)dereference(pointer_, condition);
  (void)dereference_protected(pointer_, condition);
  EXPECT_EQ(evaluated, kChecking ? 2 : 0);
  expect_reports(0);
}

TEST_F(Checked, AssignPublishesAndExchangeReturnsTheOldPointer) {
  int other = 8;
  const std::scoped_lock section(rcu_default_domain());
  pointer_.assign(&other);
  EXPECT_EQ(*dereference(pointer_), 8);
  EXPECT_EQ(pointer_.exchange(nullptr), &other);
  EXPECT_EQ(dereference(pointer_), nullptr);
}

TEST_F(Checked, TheDefaultHandlerPrintsEachCallSiteOnce) {
  const check_handler collecting = set_check_handler(nullptr);
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) (void)dereference(pointer_);
  const std::string printed = ::testing::internal::GetCapturedStderr();
  set_check_handler(collecting);
  if (kChecking) {
    EXPECT_THAT(printed, HasSubstr("suspicious RCU usage"));
    EXPECT_EQ(printed.find("suspicious"), printed.rfind("suspicious"));
  } else {
    EXPECT_EQ(printed, "");
  }
}

}  // namespace
}  // namespace tandem::rcu
