// SPDX-License-Identifier: Apache-2.0
// Litmus tests of one section against one grace period. The names in brackets are those of the
// Linux kernel's memory-model documentation ("Explanation of the Linux-Kernel Memory Consistency
// Model", RCU relations; the shapes MP, SB, LB, S and 2+2W), of which C++26 takes the same promise:
// a section either ends before rcu_synchronize() returns, and then all of it is visible after that,
// or sees all that came before the call.
#include <utility>

#include "reader_kinds.hpp"
#include "rounds.hpp"

namespace tandem::rcu {
namespace {

template <class Reader>
class RcuLitmus : public ::testing::Test {};
TYPED_TEST_SUITE(RcuLitmus, ReaderKinds, ReaderKindNames);

using Registers = std::pair<int, int>;

// [saferecl.rcu.domain.func]/2, /3, [SB+rcu]: a section that missed the update ended before the
// return, so its store is visible afterwards.
TYPED_TEST(RcuLitmus, ASectionThatMissedTheUpdateIsSeenAfterTheGracePeriod) {
  const Outcomes outcomes = run_litmus<TypeParam>(
      [](Cell& cell, Delay&) {
        cell.x.write(1);
        cell.reader[0] = cell.y.read();
      },
      [](Cell& cell) { cell.y.write(1); }, [](Cell& cell) { cell.updater[0] = cell.x.read(); },
      [](const Cell& cell) { return Registers(cell.reader[0], cell.updater[0]); });
  EXPECT_EQ(outcomes.counts[0][0], 0U);
}

// The test that has to notice the planted fault "rcu-waiter-stays-uncounted".
TEST(RcuLitmusWaiter, ASectionThatMissedTheUpdateIsSeenAfterTheGracePeriod) {
  const Outcomes outcomes = run_litmus<FormerWaiter>(
      [](Cell& cell, Delay&) {
        cell.x.write(1);
        cell.reader[0] = cell.y.read();
      },
      [](Cell& cell) { cell.y.write(1); }, [](Cell& cell) { cell.updater[0] = cell.x.read(); },
      [](const Cell& cell) { return Registers(cell.reader[0], cell.updater[0]); });
  EXPECT_EQ(outcomes.counts[0][0], 0U);
}

// [saferecl.rcu.domain.func]/2, /3: as before, with the store at the section's end.
TYPED_TEST(RcuLitmus, ASectionThatSawTheOldValueEndedBeforeTheReturn) {
  const Outcomes outcomes = run_litmus<TypeParam>(
      [](Cell& cell, Delay& delay) {
        cell.reader[0] = cell.y.read();
        delay.up_to(20);
        cell.x.write(1);
      },
      [](Cell& cell) { cell.y.write(1); }, [](Cell& cell) { cell.updater[0] = cell.x.read(); },
      [](const Cell& cell) { return Registers(cell.reader[0], cell.updater[0]); });
  EXPECT_EQ(outcomes.counts[0][0], 0U);
}

// [saferecl.rcu.domain.func]/2, [MP+rcu]: no section sees both sides of a grace period, whichever
// side it looks at first.
TYPED_TEST(RcuLitmus, NoSectionSeesTheUpdateMissingAndWhatCameAfterTheGracePeriod) {
  const Outcomes outcomes = run_litmus<TypeParam>(
      [](Cell& cell, Delay& delay) {
        cell.reader[0] = cell.y.read();
        delay.up_to(20);
        cell.reader[1] = cell.x.read();
      },
      [](Cell& cell) { cell.y.write(1); }, [](Cell& cell) { cell.x.write(1); },
      [](const Cell& cell) { return Registers(cell.reader[0], cell.reader[1]); });
  EXPECT_EQ(outcomes.counts[0][1], 0U);
}

TYPED_TEST(RcuLitmus, WhoeverSeesWhatCameAfterTheGracePeriodSeesTheUpdate) {
  const Outcomes outcomes = run_litmus<TypeParam>(
      [](Cell& cell, Delay&) {
        cell.reader[1] = cell.x.read();
        cell.reader[0] = cell.y.read();
      },
      [](Cell& cell) { cell.y.write(1); }, [](Cell& cell) { cell.x.write(1); },
      [](const Cell& cell) { return Registers(cell.reader[0], cell.reader[1]); });
  EXPECT_EQ(outcomes.counts[0][1], 0U);
}

// [RCU+sync+read]: what the updater sees of a section before a grace period it sees all of after
// it.
TYPED_TEST(RcuLitmus, ASectionSeenBeforeTheGracePeriodIsSeenWholeAfterIt) {
  const Outcomes outcomes = run_litmus<TypeParam>(
      [](Cell& cell, Delay& delay) {
        cell.x.write(1);
        delay.up_to(20);
        cell.y.write(1);
      },
      [](Cell& cell) { cell.updater[0] = cell.x.read(); },
      [](Cell& cell) { cell.updater[1] = cell.y.read(); },
      [](const Cell& cell) { return Registers(cell.updater[0], cell.updater[1]); });
  EXPECT_EQ(outcomes.counts[1][0], 0U);
}

// [LB+rcu]: a section that the updater saw a store of before the grace period does not read what
// comes after it.
TYPED_TEST(RcuLitmus, ASectionSeenBeforeTheGracePeriodReadsNothingFromAfterIt) {
  const Outcomes outcomes = run_litmus<TypeParam>(
      [](Cell& cell, Delay&) {
        cell.reader[0] = cell.x.read();
        cell.y.write(1);
      },
      [](Cell& cell) { cell.updater[0] = cell.y.read(); }, [](Cell& cell) { cell.x.write(1); },
      [](const Cell& cell) { return Registers(cell.reader[0], cell.updater[0]); });
  EXPECT_EQ(outcomes.counts[1][1], 0U);
}

// [S+rcu]: nor does its store replace one from after the grace period when it missed the update.
TYPED_TEST(RcuLitmus, ASectionThatMissedTheUpdateReplacesNoStoreFromAfterTheGracePeriod) {
  const Outcomes outcomes = run_litmus<TypeParam>(
      [](Cell& cell, Delay& delay) {
        cell.reader[0] = cell.y.read();
        delay.up_to(20);
        cell.x.write(1);
      },
      [](Cell& cell) { cell.y.write(1); }, [](Cell& cell) { cell.x.write(2); },
      // The updater's store has to be the last.
      [](const Cell& cell) { return Registers(cell.reader[0], cell.x.read() == 2 ? 1 : 0); });
  EXPECT_EQ(outcomes.counts[0][0], 0U);
}

// [2+2W+rcu]: stores of a section are not on both sides of a grace period.
TYPED_TEST(RcuLitmus, TheStoresOfASectionAreOnOneSideOfAGracePeriod) {
  const Outcomes outcomes = run_litmus<TypeParam>(
      [](Cell& cell, Delay& delay) {
        cell.y.write(1);
        delay.up_to(20);
        cell.x.write(1);
      },
      [](Cell& cell) { cell.y.write(2); }, [](Cell& cell) { cell.x.write(2); },
      // First: the updater's y came last, so the section came before; second: so has its x.
      [](const Cell& cell) {
        return Registers(cell.y.read() == 2 ? 1 : 0, cell.x.read() == 2 ? 1 : 0);
      });
  EXPECT_EQ(outcomes.counts[1][0], 0U);
}

// [RCU+sync+free]: what a section reached through a pointer is not reclaimed under it.
TYPED_TEST(RcuLitmus, WhatASectionReachedIsNotReclaimedUnderIt) {
  constexpr int kReclaimed = 7;
  const Outcomes outcomes = run_litmus<TypeParam>(
      [](Cell& cell, Delay& delay) {
        // y selects the object: 0 names x.
        cell.reader[0] = cell.y.word.load(std::memory_order_acquire);
        delay.up_to(20);
        cell.reader[1] = cell.reader[0] == 0 ? cell.x.read() : 0;
      },
      [](Cell& cell) { cell.y.word.store(1, std::memory_order_release); },
      [](Cell& cell) { cell.x.write(kReclaimed); },
      [](const Cell& cell) { return Registers(cell.reader[0], cell.reader[1] == kReclaimed); });
  EXPECT_EQ(outcomes.counts[0][1], 0U);
}

// [saferecl.rcu.general] by way of the publication: what was written before a pointer was published
// is seen through it, without a grace period. [MP+onceassign+derefonce]
TYPED_TEST(RcuLitmus, WhatWasWrittenBeforeThePublicationIsSeenThroughIt) {
  const Outcomes outcomes = run_litmus<TypeParam>(
      [](Cell& cell, Delay&) {
        cell.reader[0] = cell.y.word.load(std::memory_order_acquire);
        cell.reader[1] = cell.x.read();
      },
      [](Cell& cell) {
        cell.x.write(1);
        cell.y.word.store(1, std::memory_order_release);
      },
      [](Cell&) {}, [](const Cell& cell) { return Registers(cell.reader[0], cell.reader[1]); });
  EXPECT_EQ(outcomes.counts[1][0], 0U);
}

/// Runs `body` on two threads at once; each returns what it read.
template <class Body>
Outcomes run_symmetric(Body body) {
  constexpr std::uint64_t kSectionsPerRound = 32;  // what a round would do above
  std::atomic<bool> done{false};
  rcu_domain domain;
  Cell cell;
  Rendezvous start;
  Rendezvous end;
  int seen[2] = {};
  Outcomes outcomes;
  const auto run = [&](int id) {
    run_on_cpu(id);
    Delay delay(static_cast<std::uint32_t>(id) + 1);
    Budget budget(kSectionsPerRound);
    while (true) {
      if (id == 0) done.store(!budget.next(), std::memory_order_relaxed);
      start.meet();
      if (done.load(std::memory_order_relaxed)) return;
      delay.up_to(50);
      seen[id] = id == 0 ? body(domain, cell.x, cell.y) : body(domain, cell.y, cell.x);
      end.meet();
      if (id != 0) continue;
      ++outcomes.counts[seen[0]][seen[1]];
      cell.x.write(0);
      cell.y.write(0);
    }
  };
  std::thread first([&] { run(0); });
  std::thread second([&] { run(1); });
  first.join();
  second.join();
  std::printf("[ outcomes ]%s\n", outcomes.text().c_str());
  return outcomes;
}

// [SB+sync+sync]: a grace period is a full fence of its caller.
TEST(RcuLitmusSynchronize, IsAFullFenceOfItsCaller) {
  const Outcomes outcomes = run_symmetric([](rcu_domain& domain, Variable& mine, Variable& other) {
    mine.write(1);
    rcu_synchronize(domain);
    return other.read();
  });
  EXPECT_EQ(outcomes.counts[0][0], 0U);
}

}  // namespace
}  // namespace tandem::rcu
