// SPDX-License-Identifier: Apache-2.0
// Several threads in one tree.
#include <gtest/gtest.h>

#include <atomic>
#include <bit>
#include <thread>
#include <vector>

#include "tandem/base/test_suspension.hpp"
#include "tandem/kxo/detail/search_tree.hpp"
#include "tandem/kxo/detail/test_agents.hpp"
#include "tandem/kxo/solution.hpp"

namespace tandem::kxo::detail {
namespace {

constexpr unsigned kThreads = 3;
constexpr float kExploration = 1.4F;

/// So many iterations on each thread, all at once.
void search(SearchTree& tree, int iterations, std::uint64_t seed) {
  std::atomic<unsigned> ready{0};
  std::vector<std::jthread> threads;
  for (unsigned thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      Random random({seed, thread});
      ready.fetch_add(1);
      while (ready.load() < kThreads) std::this_thread::yield();
      for (int i = 0; i < iterations; ++i) tree.iterate(random, thread);
      tree.leave(thread);
    });
  }
}

/// What the proofs of its children say of a node.
Proof derived(const SearchTree::Seen& node) {
  Proof best = Proof::kLoss;
  bool open = node.children.empty();
  for (const SearchTree::Child& child : node.children) {
    if (child.proof == Proof::kWin) return Proof::kLoss;
    if (child.proof == Proof::kOpen) open = true;
    if (child.proof == Proof::kDraw) best = Proof::kDraw;
  }
  return open ? Proof::kOpen : best == Proof::kDraw ? Proof::kDraw : Proof::kWin;
}

/// What has to hold of every node when all threads have left. Returns: how many are proven.
std::size_t check(const SearchTree& tree, const Rules& rules) {
  std::size_t proven = 0;
  tree.for_each([&](const SearchTree::Seen& node) {
    ASSERT_LE(std::abs(static_cast<std::int64_t>(node.counts.sum)), node.counts.visits);
    std::uint64_t below = 0;
    Cells moves = 0;
    for (const SearchTree::Child& child : node.children) {
      below += child.visits;
      moves |= cell_bit(child.cell);
    }
    ASSERT_LE(below, node.counts.visits);
    ASSERT_EQ(moves & ~rules.free(node.position), 0U) << "a move to a cell that is taken";
    ASSERT_EQ(static_cast<std::size_t>(std::popcount(moves)), node.children.size());
    if (node.proof == Proof::kOpen) {
      ASSERT_EQ(derived(node), Proof::kOpen) << "was not noticed";
    } else {
      ++proven;
    }
  });
  return proven;
}

TEST(SearchTreeThreads, StressEveryIterationCountsOnce) {
  constexpr int kIterations = 15'000;
  const Rules rules = *Rules::make(7, 7, 5);
  SearchTree tree(rules, kExploration, 1 << 20, kThreads);
  for (std::uint64_t round = 0; round < 3; ++round) {
    tree.set_root(after(24, static_cast<int>(round)));
    search(tree, kIterations, round);
    EXPECT_EQ(tree.visits(), kThreads * kIterations);
    std::uint64_t visits = 0;
    for (const SearchTree::Child& child : tree.children()) visits += child.visits;
    EXPECT_EQ(visits, kThreads * kIterations);
    ASSERT_NO_FATAL_FAILURE(check(tree, rules));
  }
}

TEST(SearchTreeThreads, StressWhatTheyProveIsPerfectPlay) {
  std::size_t proven = 0;
  for (const Rules& rules : {*Rules::make(3, 3, 3), *Rules::make(4, 3, 3)}) {
    const auto solution = *Solution::shared(rules);
    SearchTree tree(rules, kExploration, 1 << 18, kThreads);
    for (int cell = 0; cell < rules.cells(); ++cell) {
      tree.set_root(after(cell));
      search(tree, 2'000, static_cast<std::uint64_t>(cell));
      ASSERT_NO_FATAL_FAILURE(proven += check(tree, rules));
      tree.for_each([&](const SearchTree::Seen& node) {
        if (node.proof == Proof::kOpen || rules.outcome(node.position) != Outcome::kOpen) return;
        const Value value = solution->value(node.position);  // of who moves
        const Proof known = value.kind == Value::Kind::kWin    ? Proof::kLoss
                            : value.kind == Value::Kind::kLoss ? Proof::kWin
                                                               : Proof::kDraw;
        ASSERT_EQ(node.proof, known) << node.position.o << ' ' << node.position.x;
      });
      if (HasFatalFailure()) return;
    }
  }
  EXPECT_GT(proven, 1'000U);
}

// After each instruction of an iteration, with whatever that has begun, another thread does one.
TEST(SearchTreeThreads, WhoIsStoppedAmidAnIterationHoldsUpNobody) {
  const Rules rules = *Rules::make(5, 5, 4);
  SearchTree tree(rules, kExploration, 1 << 16, kThreads);
  // What is allocated once stays, so that nobody is stopped in the allocator.
  tree.set_root({});
  search(tree, 2'000, 1);
  tree.clear();
  tree.set_root({});
  Random one({1, 1}), other({1, 2});
  std::uint32_t iterations = 0;
  const long times = Suspension::at_each_instruction(
      [&] {
        for (int i = 0; i < 2; ++i) tree.iterate(one, 1);
        tree.leave(1);
      },
      [&] {
        tree.iterate(other, 2);
        ++iterations;
        EXPECT_GE(tree.visits(), iterations);
      });
  tree.leave(2);
  EXPECT_EQ(tree.visits(), iterations + 2);
  ASSERT_NO_FATAL_FAILURE(check(tree, rules));
  if (times == 0) GTEST_SKIP() << "no signal after each instruction comes here";
  EXPECT_GT(times, 100);
}

// The tree is searched, its root moves, room is made, and so on.
TEST(SearchTreeThreads, StressAGameInATreeThatIsSmall) {
  const Rules rules = *Rules::make(6, 6, 5);
  SearchTree tree(rules, kExploration, 10'000, kThreads);
  Position position;
  for (std::uint64_t ply = 0; rules.outcome(position) == Outcome::kOpen; ++ply) {
    tree.set_root(position);
    const std::uint32_t before = tree.visits();
    search(tree, 500, ply);
    if (!tree.proven()) {
      EXPECT_EQ(tree.visits(), before + kThreads * 500);
    }
    ASSERT_NO_FATAL_FAILURE(check(tree, rules));
    SearchTree::Child most;
    for (const SearchTree::Child& child : tree.children()) {
      if (child.visits >= most.visits) most = child;
    }
    position = position.after(most.cell);
  }
}

}  // namespace
}  // namespace tandem::kxo::detail
