// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/detail/node_store.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace tandem::kxo::detail {
namespace {

/// Blocks until there is no more room, taken in turn with `cursors`; each node says which it is.
/// Returns: the nodes.
std::vector<Node> filled(NodeStore& store, std::vector<NodeStore::Cursor> cursors, unsigned size) {
  std::vector<Node> nodes;
  for (std::size_t i = 0, without = 0; without < cursors.size(); i = (i + 1) % cursors.size()) {
    const auto name = store.allocate(cursors[i], size);
    without = name ? 0 : without + 1;
    if (!name) continue;
    const Block block = store.block(*name, size);
    for (unsigned child = 0; child < size; ++child) {
      const Node node = block.make(child, Link(child, Proof::kDraw));
      node.statistics->add<false>(static_cast<std::int64_t>(nodes.size()) + 1, 0);
      nodes.push_back(node);
    }
  }
  return nodes;
}

void expect_intact(const std::vector<Node>& nodes, unsigned size) {
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    ASSERT_EQ(nodes[i].statistics->counts().visits, i + 1);
    const Link link = nodes[i].link->load();
    ASSERT_EQ(static_cast<unsigned>(link.cell()), i % size);
    ASSERT_EQ(link.proof(), Proof::kDraw);
  }
}

TEST(NodeStoreTest, BlocksDoNotOverlapAndFillTheRoom) {
  for (const std::size_t most : {64U, 200U, 5'000U, 100'000U}) {
    for (const std::size_t threads : {1U, 3U}) {
      for (const unsigned size : {1U, 7U, 64U}) {
        NodeStore store(most, threads, 64);
        const auto nodes = filled(store, std::vector<NodeStore::Cursor>(threads), size);
        ASSERT_NO_FATAL_FAILURE(expect_intact(nodes, size));
        EXPECT_LE(nodes.size(), most + 64 * threads);
        // Blocks of an even number of nodes, and the rests of slabs, of 64 nodes at least.
        EXPECT_GE(nodes.size(), size == 1 ? most / 2 : most / 3) << most << ' ' << size;
      }
    }
  }
}

TEST(NodeStoreTest, ThereIsRoomForOneBlockAlways) {
  NodeStore store(1, 4, 64);
  NodeStore::Cursor cursor;
  EXPECT_TRUE(store.allocate(cursor, 64));
}

TEST(NodeStoreTest, ABlockThatIsTakenBackIsGivenAgain) {
  NodeStore store(1'000, 1, 64);
  NodeStore::Cursor cursor;
  (void)store.allocate(cursor, 5);
  const auto name = store.allocate(cursor, 9);
  NodeStore::undo(cursor, 9);
  EXPECT_EQ(store.allocate(cursor, 9), name);
}

TEST(NodeStoreTest, ClearedItHasTheSameRoom) {
  NodeStore store(10'000, 2, 64);
  const auto count = filled(store, std::vector<NodeStore::Cursor>(2), 10).size();
  EXPECT_TRUE(store.crowded());
  for (int i = 0; i < 3; ++i) {
    store.clear();
    EXPECT_FALSE(store.crowded());
    EXPECT_EQ(filled(store, std::vector<NodeStore::Cursor>(2), 10).size(), count);
  }
}

TEST(NodeStoreTest, WhatIsCopiedFindsRoomBesideAllThatWas) {
  NodeStore store(10'000, 1, 64);
  auto nodes = filled(store, std::vector<NodeStore::Cursor>(1), 10);
  for (int i = 0; i < 5; ++i) {
    store.begin_copy();
    const auto copies = filled(store, std::vector<NodeStore::Cursor>(1), 10);
    ASSERT_NO_FATAL_FAILURE(expect_intact(nodes, 10));
    store.end_copy();
    ASSERT_NO_FATAL_FAILURE(expect_intact(copies, 10));
    EXPECT_EQ(copies.size(), nodes.size());
    NodeStore::Cursor cursor;
    EXPECT_FALSE(store.allocate(cursor, 10)) << "there is more room than before";
    nodes = copies;
  }
  store.begin_copy();
  store.end_copy();  // nothing is copied
  EXPECT_EQ(filled(store, std::vector<NodeStore::Cursor>(1), 10).size(), nodes.size());
}

}  // namespace
}  // namespace tandem::kxo::detail
