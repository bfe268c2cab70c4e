// SPDX-License-Identifier: Apache-2.0
#include "tandem/base/seqlock.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tandem/base/cpu.hpp"

namespace tandem {
namespace {

using Entry = Seqlock<7>;  // a cache line

bool read(Entry& entry, Entry::Words& words) {
  const std::uint64_t begun = entry.begin();
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = entry.word(i);
  return entry.ended(begun);
}

TEST(SeqlockTest, AWriterThatMeetsAnotherGivesUp) {
  Entry entry{};
  const std::uint64_t begun = entry.begin();
  ASSERT_TRUE(entry.try_begin_write(begun));
  entry.set(0, 5);
  EXPECT_FALSE(entry.try_begin_write(entry.begin()));
  entry.write({9, 9, 9, 9, 9, 9, 9});
  Entry::Words words{};
  EXPECT_FALSE(read(entry, words)) << "somebody writes";
  entry.end_write(begun);
  EXPECT_FALSE(entry.ended(begun)) << "it changed";
  ASSERT_TRUE(read(entry, words));
  EXPECT_EQ(words, (Entry::Words{5}));
  EXPECT_FALSE(entry.try_begin_write(begun)) << "somebody wrote meanwhile";
}

TEST(SeqlockTest, WhatIsWrittenInTheMiddleOfAReadVoidsIt) {
  Entry entry{};
  entry.write({1, 1, 1, 1, 1, 1, 1});
  const std::uint64_t begun = entry.begin();
  EXPECT_EQ(entry.word(0), 1U);
  entry.write({2, 2, 2, 2, 2, 2, 2});
  EXPECT_EQ(entry.word(1), 2U);
  EXPECT_FALSE(entry.ended(begun));
}

TEST(SeqlockTest, StressWhatIsReadIsOfOneWriter) {
  Entry entry{};
  std::atomic<bool> stop{false};
  std::vector<std::jthread> writers;
  for (std::uint64_t writer = 0; writer < 2; ++writer) {
    writers.emplace_back([&, writer] {
      for (std::uint64_t i = writer; !stop; i += 2) {
        entry.write({i, i, i, i, i, i, i});
        // One that loses the processor mostly has nothing begun.
        for (int pause = 0; pause < 32; ++pause) cpu_pause();
      }
    });
  }
  for (int good = 0; good < 5'000 && !HasFailure();) {
    Entry::Words words{};
    if (!read(entry, words)) {
      std::this_thread::yield();
      continue;
    }
    ++good;
    for (const std::uint64_t word : words) ASSERT_EQ(word, words[0]);
  }
  stop = true;
}

}  // namespace
}  // namespace tandem
