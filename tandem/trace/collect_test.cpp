// SPDX-License-Identifier: Apache-2.0
/// Rings that are files: what processes leave in a directory, however they end.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <stop_token>
#include <thread>

#include "tandem/base/mapping.hpp"
#include "tandem/base/test_directory.hpp"
#include "tandem/trace/detail/ring.hpp"
#include "tandem/trace/detail/ring_file.hpp"

namespace tandem::trace {
namespace {

using detail::Ring;
using detail::RingFiles;

class Collect : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(files_.set_directory(directory_.path().c_str()));
    files_.set_entries(64);
  }

  Mapping make_ring() { return detail::new_ring_memory(files_, 0); }
  static Ring ring_in(const Mapping& memory) { return Ring::find(memory.data(), memory.size()); }
  static Record record(std::uint64_t time_ns, std::uint64_t argument) {
    Record made;
    made.time_ns = time_ns;
    made.event = Event::kPark;
    made.cpu = 3;
    made.thread = 77;
    made.arguments = {argument, ~argument, argument * 31, argument + 1};
    return made;
  }
  Recording collect_all() {
    auto recording = collect(directory_.path());
    EXPECT_TRUE(recording);
    return recording ? std::move(*recording) : Recording();
  }

  const TestDirectory directory_;
  RingFiles files_;
};

TEST_F(Collect, MergesRingsByTime) {
  const Mapping first = make_ring(), second = make_ring();
  ring_in(first).write(record(10, 1));
  ring_in(second).write(record(5, 2));
  ring_in(first).write(record(20, 3));
  const Recording recording = collect_all();
  ASSERT_EQ(recording.records.size(), 3U);
  EXPECT_EQ(recording.records[0].arguments[0], 2U);
  EXPECT_EQ(recording.records[1].arguments[0], 1U);
  EXPECT_EQ(recording.records[2].arguments[0], 3U);
  EXPECT_EQ(recording.records[2].time_ns, 20U);
  EXPECT_EQ(recording.records[2].event, Event::kPark);
  EXPECT_EQ(recording.records[2].cpu, 3U);
  EXPECT_EQ(recording.records[2].thread, 77U);
  EXPECT_EQ(recording.records[2].process, static_cast<std::uint32_t>(::getpid()));
  EXPECT_EQ(recording.dropped, 0U);
  EXPECT_EQ(recording.threads.size(), 2U);
}

TEST_F(Collect, CountsWhatAFullRingOverwrote) {
  const Mapping memory = make_ring();
  for (std::uint64_t i = 0; i < 64 + 7; ++i) ring_in(memory).write(record(i, i));
  ring_in(memory).header().lost.fetch_add(2);
  const Recording recording = collect_all();
  ASSERT_EQ(recording.records.size(), 64U);
  EXPECT_EQ(recording.records.front().arguments[0], 7U);
  EXPECT_EQ(recording.dropped, 9U);
}

TEST_F(Collect, AnEntryThatWasBeingWrittenAtTheEndIsLeftOutAndCounted) {
  const Mapping memory = make_ring();
  for (std::uint64_t i = 0; i < 64; ++i) ring_in(memory).write(record(i, i));
  auto* const entries =
      reinterpret_cast<detail::Entry*>(memory.data() + sizeof(detail::RingHeader));
  entries[0].sequence.store(0);
  const Recording recording = collect_all();
  EXPECT_EQ(recording.records.size(), 63U);
  EXPECT_EQ(recording.dropped, 1U);
}

TEST_F(Collect, FilesThatAreNoRingsAreCounted) {
  const Mapping memory = make_ring();
  ring_in(memory).write(record(1, 1));
  std::ofstream(directory_ / "empty");
  std::ofstream(directory_ / "text") << std::string(5000, 'x');
  const std::string copy = directory_ / "cut";
  std::ofstream(copy).write(reinterpret_cast<const char*>(memory.data()),
                            static_cast<std::streamsize>(memory.size() - 1));
  std::filesystem::create_directory(directory_ / "directory");
  std::filesystem::create_symlink("/dev/zero", directory_ / "link");
  ASSERT_EQ(::mkfifo((directory_ / "fifo").c_str(), 0600), 0);
  const Recording recording = collect_all();
  EXPECT_EQ(recording.records.size(), 1U);
  EXPECT_EQ(recording.unreadable, 6U);
}

TEST_F(Collect, NoSuchDirectory) {
  const auto recording = collect(directory_ / "none");
  ASSERT_FALSE(recording);
  EXPECT_EQ(recording.error().value(), ENOENT);
}

TEST_F(Collect, SizesAreRoundedAndBounded) {
  const auto size_for = [](std::size_t wanted) {
    RingFiles files;
    files.set_entries(wanted);
    return files.entries();
  };
  EXPECT_EQ(size_for(0), RingFiles::kDefaultEntries);
  EXPECT_EQ(size_for(1), 64U);
  EXPECT_EQ(size_for(65), 128U);
  EXPECT_EQ(size_for(~std::size_t{0}), RingFiles::kMostEntries);
  EXPECT_FALSE(RingFiles().set_directory("relative"));
  EXPECT_FALSE(RingFiles().set_directory(("/" + std::string(PATH_MAX, 'x')).c_str()));
}

TEST_F(Collect, WhatCannotBeMadeIsNoRing) {
  RingFiles files;
  ASSERT_TRUE(files.set_directory((directory_ / "none").c_str()));
  EXPECT_FALSE(detail::new_ring_memory(files, 64));
}

TEST_F(Collect, AKilledProcessLeavesItsEvents) {
  const pid_t child = ::fork();
  if (child == 0) {
    const Mapping memory = make_ring();
    for (std::uint64_t i = 0; i < 10; ++i) ring_in(memory).write(record(i, i));
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  const Recording recording = collect_all();
  ASSERT_EQ(recording.records.size(), 10U);
  EXPECT_EQ(recording.records[9].process, static_cast<std::uint32_t>(child));
  EXPECT_EQ(recording.dropped, 0U);
}

TEST_F(Collect, StressCollectingDuringWritingShowsNoMixedEntryAndCountsTheRest) {
  const Mapping memory = make_ring();
  std::atomic<std::uint64_t> written{0};
  const std::jthread writer([&](const std::stop_token& stop) {
    Ring ring = ring_in(memory);
    for (std::uint64_t i = 0; !stop.stop_requested(); ++i) {
      ring.write(record(i, i));
      written.store(i + 1, std::memory_order_release);
    }
  });
  while (written.load(std::memory_order_acquire) < 64) std::this_thread::yield();
  for (int round = 0; round < 200; ++round) {
    const std::uint64_t before = written.load(std::memory_order_acquire);
    const Recording recording = collect_all();
    ASSERT_GE(recording.records.size() + recording.dropped, before);
    std::uint64_t last = 0;
    for (const Record& each : recording.records) {
      const std::uint64_t i = each.time_ns;
      ASSERT_EQ(each.arguments, record(i, i).arguments);
      ASSERT_TRUE(last == 0 || i > last);
      last = i;
    }
  }
}

}  // namespace
}  // namespace tandem::trace
