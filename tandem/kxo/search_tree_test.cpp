// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/detail/search_tree.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "tandem/kxo/detail/test_agents.hpp"
#include "tandem/kxo/solution.hpp"

namespace tandem::kxo::detail {
namespace {

constexpr float kExploration = 1.4F;

SearchTree searched(const Rules& rules, const Position& position, int iterations,
                    float exploration = kExploration) {
  SearchTree tree(rules, exploration, 1 << 20);
  tree.set_root(position);
  Random random({1, 1});
  for (int i = 0; i < iterations; ++i) tree.iterate(random);
  return tree;
}

std::uint64_t visits(const SearchTree& tree) {
  std::uint64_t sum = 0;
  for (const SearchTree::Child& child : tree.children()) sum += child.visits;
  return sum;
}

TEST(SearchTreeTest, EveryIterationVisitsOneChildOfTheRoot) {
  const SearchTree tree = searched(*Rules::make(7, 7, 5), {}, 1'000);
  EXPECT_EQ(tree.children().size(), 49U);
  EXPECT_EQ(visits(tree), 1'000U);
}

// What a leaf's playout and a finished game say has to have one sign: upstream's did not.
TEST(SearchTreeTest, ProvenResultsAreThoseOfPerfectPlay) {
  const Rules rules = *Rules::make(3, 3, 3);
  const auto solution = *Solution::shared(rules);
  Random random({3, 1});
  int proven = 0;
  for (int i = 0; i < 300; ++i) {
    Position position;
    for (auto plies = random.below(7); plies > 0; --plies) {
      if (rules.outcome(position) != Outcome::kOpen) break;
      const Cells free = rules.free(position);
      position = position.after(nth_cell(
          free, static_cast<int>(random.below(static_cast<std::uint64_t>(std::popcount(free))))));
    }
    if (rules.outcome(position) != Outcome::kOpen) continue;
    const SearchTree tree = searched(rules, position, 3'000);
    for (const SearchTree::Child& child : tree.children()) {
      if (child.proof == Proof::kOpen) continue;
      ++proven;
      const Value value = solution->value(position.after(child.cell));  // of the other player
      const Proof known = value.kind == Value::Kind::kWin    ? Proof::kLoss
                          : value.kind == Value::Kind::kLoss ? Proof::kWin
                                                             : Proof::kDraw;
      ASSERT_EQ(child.proof, known) << position.o << ' ' << position.x << ' ' << child.cell;
    }
  }
  EXPECT_GT(proven, 500);
}

// Averages are results of random games, in [-1, 1]; upstream's fixed point overflowed.
TEST(SearchTreeTest, AveragesAreThoseOfTheResults) {
  // X has every second cell of a board that only O can still win on, and O moves at random.
  const SearchTree tree = searched(*Rules::make(7, 7, 5), {}, 20'000);
  for (const SearchTree::Child& child : tree.children()) {
    EXPECT_GE(child.mean, -1);
    EXPECT_LE(child.mean, 1);
    EXPECT_GT(child.visits, 0U);
  }
  const auto children = tree.children();
  const auto most = std::max_element(children.begin(), children.end(),
                                     [](auto& a, auto& b) { return a.visits < b.visits; });
  EXPECT_GT(most->mean, 0);
}

// What playouts say has to be for who moved to where they begin. Nothing else says so here: a tree
// that may not grow proves nothing, and compares no averages of both players.
TEST(SearchTreeTest, ALeafIsWorthWhatRandomPlayGivesWhoMovedThere) {
  const Rules rules = *Rules::make(3, 3, 3);
  for (const Position& position : {Position{}, after(4), after(0, 5)}) {
    SearchTree tree(rules, 100, 1);
    tree.set_root(position);
    Random random({5, 1});
    const auto children = static_cast<int>(tree.children().size());
    for (int i = 0; i < 4'000 * children; ++i) tree.iterate(random);
    const bool o_moves = position.to_move() == Player::kO;
    for (const SearchTree::Child& child : tree.children()) {
      auto shares = random_play(rules, position.after(child.cell));
      const double for_o = shares[Outcome::kO] - shares[Outcome::kX];
      EXPECT_EQ(child.proof, Proof::kOpen);
      EXPECT_GT(child.visits, 3'000U);
      // Five standard deviations of 3,000 results.
      EXPECT_NEAR(child.mean, o_moves ? for_o : -for_o, 0.092) << child.cell;
    }
  }
}

// The term that upstream's operators bound differently: with it every child is visited often, and
// without it nearly only the best one.
TEST(SearchTreeTest, ExplorationSpreadsTheVisits) {
  const auto least = [](float exploration) {
    const SearchTree tree = searched(*Rules::make(6, 6, 4), after(0), 4'000, exploration);
    std::uint32_t fewest = ~0U;
    for (const SearchTree::Child& child : tree.children()) {
      if (child.proof == Proof::kOpen) fewest = std::min(fewest, child.visits);
    }
    return fewest;
  };
  EXPECT_LT(least(0), 10U);
  EXPECT_GT(least(20), 80U);  // of 4,000 / 35
}

TEST(SearchTreeTest, KeepsWhatFollowsFromItsRoot) {
  SearchTree tree = searched(*Rules::make(7, 7, 5), {}, 20'000);
  const auto before = tree.children();
  const auto most = std::max_element(before.begin(), before.end(),
                                     [](auto& a, auto& b) { return a.visits < b.visits; });
  const std::size_t size = tree.size();
  tree.set_root(after(most->cell));
  // The first visit of a node is its own.
  EXPECT_EQ(visits(tree), most->visits - 1);
  EXPECT_LT(tree.size(), size);
  const auto replies = tree.children();
  tree.set_root(after(most->cell, replies[3].cell));
  EXPECT_LT(visits(tree), replies[3].visits);
  // Something else.
  tree.set_root(after(0, 1, 2, 3));
  EXPECT_EQ(visits(tree), 0U);
  tree.set_root({});
  EXPECT_EQ(visits(tree), 0U);
}

TEST(SearchTreeTest, TwoMovesAreFoundAsWellAsOne) {
  SearchTree tree = searched(*Rules::make(4, 4, 4), {}, 20'000);
  tree.set_root(after(5, 6));
  EXPECT_GT(visits(tree), 10U);
}

TEST(SearchTreeTest, AForcedMoveIsTheOnlyChild) {
  const SearchTree tree = searched(Rules::standard(), after(0, 4, 15, 5), 100);
  ASSERT_EQ(tree.children().size(), 1U);
  EXPECT_EQ(tree.children()[0].cell, 6);
}

TEST(SearchTreeTest, GrowsNoFurtherThanItMay) {
  SearchTree tree(*Rules::make(8, 8, 5), kExploration, 200);
  tree.set_root({});
  Random random({1, 1});
  for (int i = 0; i < 5'000; ++i) tree.iterate(random);
  EXPECT_LE(tree.size(), 200U + 64U);
  EXPECT_EQ(visits(tree), 5'000U);
}

}  // namespace
}  // namespace tandem::kxo::detail
