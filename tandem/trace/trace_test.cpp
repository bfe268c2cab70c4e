// SPDX-License-Identifier: Apache-2.0
#include "tandem/trace/trace.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <stop_token>
#include <thread>
#include <vector>

namespace tandem::trace {
namespace {

class Trace : public ::testing::Test {
 protected:
  void SetUp() override { enable(kNoCategories); }
  void TearDown() override { enable(kNoCategories); }
};

TEST_F(Trace, NothingIsRecordedWhileOff) {
  enable(kAllCategories);
  enable(kNoCategories);
  TANDEM_TRACE(park, 1, 2);
  EXPECT_TRUE(snapshot().empty());
  EXPECT_EQ(dropped(), 0U);
}

TEST_F(Trace, RecordsKeepEventArgumentsThreadAndOrder) {
  enable(kAllCategories);
  const int object = 0;
  TANDEM_TRACE(queue_submit, 7, 8U);
  TANDEM_TRACE(queue_death, &object, -1);
  const auto records = snapshot();
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[0].event, Event::kQueueSubmit);
  EXPECT_EQ(records[0].arguments[0], 7U);
  EXPECT_EQ(records[0].arguments[1], 8U);
  EXPECT_EQ(records[0].thread, static_cast<std::uint32_t>(::gettid()));
  EXPECT_EQ(records[1].event, Event::kQueueDeath);
  EXPECT_EQ(records[1].arguments[0], reinterpret_cast<std::uintptr_t>(&object));
  EXPECT_EQ(records[1].arguments[1], ~std::uint64_t{0});
  EXPECT_LE(records[0].time_ns, records[1].time_ns);
}

TEST_F(Trace, EveryEventHasItsProbeName) {
  EXPECT_EQ(event_info(Event::kQueueSubmit).name, "queue_submit");
  EXPECT_EQ(event_info(Event::kOperationBegin).name, "operation_begin");
  EXPECT_EQ(event_info(Event::kOperationBegin).phase, Phase::kBegin);
  EXPECT_EQ(event_info(Event::kRcuStall).name, "rcu_stall");
  EXPECT_EQ(event_info(Event::kPageRequest).category, Category::kFault);
  EXPECT_EQ(event_info(Event::kPageRequest).arguments[1], "address");
  EXPECT_EQ(event_info(static_cast<Event>(999)).name, "unknown");
}

TEST_F(Trace, CategoriesAreNamed) {
  EXPECT_EQ(parse_categories("all"), kAllCategories);
  EXPECT_EQ(parse_categories("engine"), static_cast<Categories>(Category::kEngine));
  EXPECT_EQ(parse_categories("fault,rcu"),
            static_cast<Categories>(Category::kFault) + static_cast<Categories>(Category::kRcu));
  for (const char* const wrong : {"", "engin", "engine,", ",engine", "engine fault", "ENGINE"}) {
    EXPECT_EQ(parse_categories(wrong), std::nullopt) << wrong;
  }
  Categories sum = kNoCategories;
  for (Categories bit = 1; bit <= kAllCategories; bit *= 2) {
    const auto named = parse_categories(category_name(static_cast<Category>(bit)));
    ASSERT_TRUE(named) << bit;
    sum += *named;
  }
  EXPECT_EQ(sum, kAllCategories);
}

TEST_F(Trace, CategoriesAreSwitchedWhileARecordingRuns) {
  constexpr auto kQueue = static_cast<Categories>(Category::kQueue);
  constexpr auto kFault = static_cast<Categories>(Category::kFault);
  enable(kQueue);
  TANDEM_TRACE(park, 1, 0);
  TANDEM_TRACE(page_request, 2, 0);
  mark("3");
  enable(kFault);
  TANDEM_TRACE(park, 4, 0);
  TANDEM_TRACE(page_request, 5, 0);
  enable(kNoCategories);
  TANDEM_TRACE(page_request, 6, 0);
  const auto records = snapshot();
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[0].arguments[0], 1U);
  EXPECT_EQ(records[1].arguments[0], 5U);
}

TEST_F(Trace, ArgumentsAfterTheSecondAreEvaluatedOnlyWhileOn) {
  int evaluated = 0;
  const auto count = [&] { return ++evaluated; };
  TANDEM_TRACE(operation_begin, 1, 2, count(), count());
  EXPECT_EQ(evaluated, 0);
  enable(kAllCategories);
  TANDEM_TRACE(operation_begin, 1, 2, count(), 7);
  EXPECT_EQ(evaluated, 1);
  const std::array<std::uint64_t, 4> expected{1, 2, 1, 7};
  EXPECT_EQ(snapshot().at(0).arguments, expected);
}

TEST_F(Trace, AMarkKeepsItsText) {
  enable(kAllCategories);
  mark("kill tenant 3");
  mark("0123456789012345678901234567890123456789");
  mark("");
  const auto records = snapshot();
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[0].text(), "kill tenant 3");
  EXPECT_EQ(records[1].text(), "01234567890123456789012345678901");
  EXPECT_EQ(records[2].text(), "");
}

TEST_F(Trace, ARecordNamesTheCoreItWasOn) {
  cpu_set_t one, before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  enable(kAllCategories);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE && cpus.size() < 2; ++cpu) {
    if (!CPU_ISSET(cpu, &before)) continue;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
    cpus.push_back(cpu);
    TANDEM_TRACE(park, 1, 2);
  }
  ::sched_setaffinity(0, sizeof before, &before);
  const auto records = snapshot();
  ASSERT_EQ(records.size(), cpus.size());
  for (std::size_t i = 0; i < cpus.size(); ++i) EXPECT_EQ(records[i].cpu, cpus[i]);
}

TEST_F(Trace, AFullRingOverwritesTheOldestAndCountsThem) {
  enable(kAllCategories);
  constexpr std::uint64_t kExtra = 100;
  for (std::uint64_t i = 0; i < kRingEntries + kExtra; ++i) TANDEM_TRACE(wake, i, 0);
  const auto records = snapshot();
  ASSERT_EQ(records.size(), kRingEntries);
  EXPECT_EQ(records.front().arguments[0], kExtra);
  EXPECT_EQ(records.back().arguments[0], kRingEntries + kExtra - 1);
  EXPECT_EQ(dropped(), kExtra);
}

TEST_F(Trace, ANewRecordingForgetsTheLast) {
  enable(kAllCategories);
  for (std::size_t i = 0; i < kRingEntries + 1; ++i) TANDEM_TRACE(wake, i, 0);
  enable(kNoCategories);
  enable(kAllCategories);
  EXPECT_TRUE(snapshot().empty());
  EXPECT_EQ(dropped(), 0U);
  TANDEM_TRACE(park, 1, 2);
  EXPECT_EQ(snapshot().size(), 1U);
}

TEST_F(Trace, ThreadsAreMergedByTimeAndSurviveTheirExit) {
  enable(kAllCategories);
  for (std::uint64_t i = 0; i < 50; ++i) {
    std::thread([i] { TANDEM_TRACE(operation_begin, i, 0); }).join();
    TANDEM_TRACE(operation_end, i, 0);
  }
  const auto records = snapshot();
  ASSERT_EQ(records.size(), 100U);
  for (std::uint64_t i = 0; i < 50; ++i) {
    EXPECT_EQ(records[2 * i].event, Event::kOperationBegin);
    EXPECT_EQ(records[2 * i].arguments[0], i);
    EXPECT_NE(records[2 * i].thread, records[2 * i + 1].thread);
    EXPECT_EQ(records[2 * i + 1].event, Event::kOperationEnd);
  }
}

TEST_F(Trace, StressASnapshotDuringWritingNeverShowsAMixedEntry) {
  enable(kAllCategories);
  constexpr int kWriters = 3;
  std::vector<std::jthread> writers;
  for (std::uint64_t id = 1; id <= kWriters; ++id) {
    writers.emplace_back([id](const std::stop_token& stop) {
      for (std::uint64_t i = 0; !stop.stop_requested(); ++i) {
        TANDEM_TRACE(page_request, i, i * 31 + id);
      }
    });
  }
  while (dropped() == 0) std::this_thread::yield();
  for (int round = 0; round < 50; ++round) {
    std::map<std::uint64_t, std::uint64_t> last;
    for (const Record& record : snapshot()) {
      const std::uint64_t id = record.arguments[1] - record.arguments[0] * 31;
      ASSERT_GE(id, 1U);
      ASSERT_LE(id, static_cast<std::uint64_t>(kWriters));
      const auto [entry, first] = last.try_emplace(id, record.arguments[0]);
      if (!first) {
        ASSERT_LT(entry->second, record.arguments[0]) << "one thread's events out of order";
        entry->second = record.arguments[0];
      }
    }
  }
}

TEST_F(Trace, AForkedChildGoesOnRecording) {
  enable(kAllCategories);
  TANDEM_TRACE(park, 1, 0);
  const pid_t child = ::fork();
  if (child == 0) {
    TANDEM_TRACE(fork_rebind, 2, 0);
    const auto records = snapshot();
    ::_exit(records.size() == 2 && records[1].event == Event::kForkRebind ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(snapshot().size(), 1U);
}

}  // namespace
}  // namespace tandem::trace
