// SPDX-License-Identifier: Apache-2.0
#include "tandem/trace/trace.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <thread>
#include <vector>

namespace tandem::trace {
namespace {

class Trace : public ::testing::Test {
 protected:
  void SetUp() override { enable(false); }
  void TearDown() override { enable(false); }
};

TEST_F(Trace, NothingIsRecordedWhileOff) {
  enable(true);
  enable(false);
  TANDEM_TRACE(park, 1, 2);
  EXPECT_TRUE(snapshot().empty());
  EXPECT_EQ(dropped(), 0U);
}

TEST_F(Trace, RecordsKeepEventArgumentsThreadAndOrder) {
  enable(true);
  const int object = 0;
  TANDEM_TRACE(queue_submit, 7, 8U);
  TANDEM_TRACE(queue_death, &object, -1);
  const auto records = snapshot();
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[0].event, Event::kQueueSubmit);
  EXPECT_EQ(records[0].a, 7U);
  EXPECT_EQ(records[0].b, 8U);
  EXPECT_EQ(records[0].thread, static_cast<std::uint32_t>(::gettid()));
  EXPECT_EQ(records[1].event, Event::kQueueDeath);
  EXPECT_EQ(records[1].a, reinterpret_cast<std::uintptr_t>(&object));
  EXPECT_EQ(records[1].b, ~std::uint64_t{0});
  EXPECT_LE(records[0].time_ns, records[1].time_ns);
}

TEST_F(Trace, EveryEventHasItsProbeName) {
  EXPECT_EQ(event_name(Event::kQueueSubmit), "queue_submit");
  EXPECT_EQ(event_name(Event::kAtsInvalidate), "ats_invalidate");
  EXPECT_EQ(event_name(Event::kQueueDeath), "queue_death");
  EXPECT_EQ(event_name(static_cast<Event>(999)), "unknown");
}

TEST_F(Trace, AFullRingOverwritesTheOldestAndCountsThem) {
  enable(true);
  constexpr std::uint64_t kExtra = 100;
  for (std::uint64_t i = 0; i < kRingEntries + kExtra; ++i) TANDEM_TRACE(wake, i, 0);
  const auto records = snapshot();
  ASSERT_EQ(records.size(), kRingEntries);
  EXPECT_EQ(records.front().a, kExtra);
  EXPECT_EQ(records.back().a, kRingEntries + kExtra - 1);
  EXPECT_EQ(dropped(), kExtra);
}

TEST_F(Trace, ANewRecordingForgetsTheLast) {
  enable(true);
  for (std::size_t i = 0; i < kRingEntries + 1; ++i) TANDEM_TRACE(wake, i, 0);
  enable(false);
  enable(true);
  EXPECT_TRUE(snapshot().empty());
  EXPECT_EQ(dropped(), 0U);
  TANDEM_TRACE(park, 1, 2);
  EXPECT_EQ(snapshot().size(), 1U);
}

TEST_F(Trace, ThreadsAreMergedByTimeAndSurviveTheirExit) {
  enable(true);
  for (std::uint64_t i = 0; i < 50; ++i) {
    std::thread([i] { TANDEM_TRACE(operation_begin, i, 0); }).join();
    TANDEM_TRACE(operation_end, i, 0);
  }
  const auto records = snapshot();
  ASSERT_EQ(records.size(), 100U);
  for (std::uint64_t i = 0; i < 50; ++i) {
    EXPECT_EQ(records[2 * i].event, Event::kOperationBegin);
    EXPECT_EQ(records[2 * i].a, i);
    EXPECT_NE(records[2 * i].thread, records[2 * i + 1].thread);
    EXPECT_EQ(records[2 * i + 1].event, Event::kOperationEnd);
  }
}

TEST_F(Trace, ASnapshotDuringWritingNeverShowsAMixedEntry) {
  enable(true);
  constexpr int kWriters = 3;
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  for (std::uint64_t id = 1; id <= kWriters; ++id) {
    writers.emplace_back([id, &stop] {
      for (std::uint64_t i = 0; !stop.load(std::memory_order_relaxed); ++i) {
        TANDEM_TRACE(page_request, i, i * 31 + id);
      }
    });
  }
  while (dropped() == 0) std::this_thread::yield();
  for (int round = 0; round < 50; ++round) {
    std::map<std::uint64_t, std::uint64_t> last;
    for (const Record& record : snapshot()) {
      const std::uint64_t id = record.b - record.a * 31;
      ASSERT_GE(id, 1U);
      ASSERT_LE(id, static_cast<std::uint64_t>(kWriters));
      const auto [entry, first] = last.try_emplace(id, record.a);
      if (!first) {
        ASSERT_LT(entry->second, record.a) << "one thread's events out of order";
        entry->second = record.a;
      }
    }
  }
  stop = true;
  for (auto& writer : writers) writer.join();
}

TEST_F(Trace, AForkedChildGoesOnRecording) {
  enable(true);
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
