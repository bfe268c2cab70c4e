// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/detail/search_tree.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <vector>

#include "tandem/kxo/detail/test_agents.hpp"
#include "tandem/kxo/solution.hpp"

namespace tandem::kxo::detail {
namespace {

constexpr float kExploration = 1.4F;

void iterate(SearchTree& tree, int iterations, GameKey key = {1, 1}) {
  Random random(key);
  for (int i = 0; i < iterations; ++i) tree.iterate(random);
  tree.leave();
}

std::unique_ptr<SearchTree> searched(const Rules& rules, const Position& position, int iterations,
                                     float exploration = kExploration,
                                     std::size_t most_nodes = 1 << 20) {
  auto tree = std::make_unique<SearchTree>(rules, exploration, most_nodes);
  tree->set_root(position);
  iterate(*tree, iterations);
  return tree;
}

/// A node, to be compared.
struct Known {
  Position position;
  std::uint32_t visits = 0;
  std::int32_t sum = 0;
  Proof proof = Proof::kOpen;

  friend bool operator==(const Known&, const Known&) = default;
};

std::uint64_t visits(const SearchTree& tree) {
  std::uint64_t sum = 0;
  for (const SearchTree::Child& child : tree.children()) sum += child.visits;
  return sum;
}

TEST(SearchTreeTest, EveryIterationVisitsOneChildOfTheRoot) {
  const auto tree = searched(*Rules::make(7, 7, 5), {}, 1'000);
  EXPECT_EQ(tree->children().size(), 49U);
  EXPECT_EQ(visits(*tree), 1'000U);
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
    const auto tree = searched(rules, position, 3'000);
    for (const SearchTree::Child& child : tree->children()) {
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
  const auto tree = searched(*Rules::make(7, 7, 5), {}, 20'000);
  for (const SearchTree::Child& child : tree->children()) {
    EXPECT_GE(child.mean, -1);
    EXPECT_LE(child.mean, 1);
    EXPECT_GT(child.visits, 0U);
  }
  const auto children = tree->children();
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
    const auto replies = static_cast<int>(tree.children().size());
    iterate(tree, 4'000 * replies, {5, 1});
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
    const auto tree = searched(*Rules::make(6, 6, 4), after(0), 4'000, exploration);
    std::uint32_t fewest = ~0U;
    for (const SearchTree::Child& child : tree->children()) {
      if (child.proof == Proof::kOpen) fewest = std::min(fewest, child.visits);
    }
    return fewest;
  };
  EXPECT_LT(least(0), 10U);
  EXPECT_GT(least(20), 80U);  // of 4,000 / 35
}

/// What the tree knows below the move `cell` from its root, depth first.
std::vector<Known> known_below(const SearchTree& tree, const Position& position, int cell) {
  const Position after = position.after(cell);
  std::vector<Known> known;
  bool inside = false;
  tree.for_each([&](const SearchTree::Seen& node) {
    inside = node.position == after || (inside && node.position.plies() > after.plies());
    if (inside) known.push_back({node.position, node.counts.visits, node.counts.sum, node.proof});
  });
  return known;
}

// With so few nodes what is kept has to be copied, with so many it stays where it is.
TEST(SearchTreeTest, KeepsWhatFollowsFromItsRoot) {
  for (const std::size_t most_nodes : {20'000U, 1U << 20}) {
    const auto tree = searched(*Rules::make(7, 7, 5), {}, 20'000, kExploration, most_nodes);
    const auto before = tree->children();
    const auto most = std::max_element(before.begin(), before.end(),
                                       [](auto& a, auto& b) { return a.visits < b.visits; });
    const auto known = known_below(*tree, {}, most->cell);
    EXPECT_GT(known.size(), 100U);
    tree->set_root(after(most->cell));
    // The first visit of a node is its own.
    EXPECT_EQ(visits(*tree), most->visits - 1);
    std::vector<Known> kept;
    tree->for_each([&](const SearchTree::Seen& node) {
      kept.push_back({node.position, node.counts.visits, node.counts.sum, node.proof});
    });
    EXPECT_EQ(kept, known);
    iterate(*tree, 100);
    EXPECT_EQ(visits(*tree), most->visits - 1 + 100);
    const auto replies = tree->children();
    tree->set_root(after(most->cell, replies[3].cell));
    EXPECT_LT(visits(*tree), replies[3].visits);
    // Something else.
    tree->set_root(after(0, 1, 2, 3));
    EXPECT_EQ(visits(*tree), 0U);
    tree->set_root({});
    EXPECT_EQ(visits(*tree), 0U);
  }
}

// A game from its first move to its last one, in a tree that has room for a few moves of it.
TEST(SearchTreeTest, WhatIsKeptIsKnownAlsoAfterRoomWasMadeManyTimes) {
  const Rules rules = *Rules::make(6, 6, 5);
  SearchTree large(rules, kExploration, 1 << 22), small(rules, kExploration, 60'000);
  Position position;
  for (std::uint64_t ply = 0; rules.outcome(position) == Outcome::kOpen; ++ply) {
    for (SearchTree* const tree : {&large, &small}) {
      tree->set_root(position);
      iterate(*tree, 300, {ply, 1});
    }
    const auto a = large.children(), b = small.children();
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      ASSERT_EQ(a[i].visits, b[i].visits) << position.o << ' ' << position.x;
      ASSERT_EQ(a[i].mean, b[i].mean);
      ASSERT_EQ(a[i].proof, b[i].proof);
    }
    const auto most =
        std::max_element(a.begin(), a.end(), [](auto& x, auto& y) { return x.visits < y.visits; });
    position = position.after(most->cell);
  }
}

TEST(SearchTreeTest, TwoMovesAreFoundAsWellAsOne) {
  const auto tree = searched(*Rules::make(4, 4, 4), {}, 20'000);
  tree->set_root(after(5, 6));
  EXPECT_GT(visits(*tree), 10U);
}

TEST(SearchTreeTest, AForcedMoveIsTheOnlyChild) {
  const auto tree = searched(Rules::standard(), after(0, 4, 15, 5), 100);
  ASSERT_EQ(tree->children().size(), 1U);
  EXPECT_EQ(tree->children()[0].cell, 6);
}

TEST(SearchTreeTest, GrowsNoFurtherThanItMay) {
  const auto tree = searched(*Rules::make(8, 8, 5), {}, 5'000, kExploration, 200);
  std::size_t nodes = 0;
  tree->for_each([&](const SearchTree::Seen&) { ++nodes; });
  EXPECT_LE(nodes, 200U + 1U);  // and the root
  EXPECT_GT(nodes, 100U);
  EXPECT_EQ(visits(*tree), 5'000U);
}

// What it keeps to itself about a position is a small part of what was found out about it.
TEST(SearchTreeTest, AThreadAmidTheTreeHasToldMostOfItsResults) {
  SearchTree tree(*Rules::make(7, 7, 5), kExploration, 1 << 20);
  tree.set_root({});
  Random random({1, 1});
  for (int i = 0; i < 10'000; ++i) tree.iterate(random);
  EXPECT_GE(visits(tree), 9'700U);
  EXPECT_GE(tree.visits(), 9'700U);
  tree.leave();
  EXPECT_EQ(visits(tree), 10'000U);
  EXPECT_EQ(tree.visits(), 10'000U);
}

// What all of them plan counts as losses until it is done.
TEST(SearchTreeTest, ManyThreadsPlanNoMoreThanFew) {
  constexpr unsigned kMany = 64;
  SearchTree tree(*Rules::make(7, 7, 5), kExploration, 1 << 20, kMany);
  tree.set_root({});
  Random random({1, 1});
  for (unsigned i = 0; i < 320 * kMany; ++i) tree.iterate(random, i % kMany);
  const std::uint32_t planned = tree.visits();
  for (unsigned thread = 0; thread < kMany; ++thread) tree.leave(thread);
  EXPECT_EQ(tree.visits(), 320 * kMany);
  EXPECT_LE(planned, 320 * kMany * 11 / 10);
}

}  // namespace
}  // namespace tandem::kxo::detail
