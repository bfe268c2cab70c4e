// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/index_map.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/rcu/detail/test_threads.hpp"

namespace tandem::rcu {
namespace {

constexpr std::uint64_t kLast = ~std::uint64_t{0};

struct Item : rcu_obj_base<Item> {
  explicit Item(std::uint64_t number = 0) : value(number) {}
  ~Item() { value = kLast; }
  std::atomic<std::uint64_t> value;
};

using Entries = std::vector<std::pair<std::uint64_t, const Item*>>;

Entries entries(const index_map<Item>& map) {
  const std::scoped_lock section(map.domain());
  Entries seen;
  map.for_each(false, [&](std::uint64_t index, Item& item) { seen.emplace_back(index, &item); });
  return seen;
}

Item* load(const index_map<Item>& map, std::uint64_t index) {
  const std::scoped_lock section(map.domain());
  return map.load(index);
}

TEST(IndexMap, HoldsWhatWasStoredAtAnyIndex) {
  index_map<Item> map;
  const std::vector<std::uint64_t> indices{0,    1,         63,        64,        4095,
                                           4096, 1U << 20U, kLast / 2, kLast - 1, kLast};
  std::vector<std::unique_ptr<Item>> items;
  Entries expected;
  for (const std::uint64_t index : indices) {
    EXPECT_EQ(load(map, index), nullptr);
    items.push_back(std::make_unique<Item>(index));
    EXPECT_EQ(map.store(index, *items.back()).value(), nullptr);
    expected.emplace_back(index, items.back().get());
  }
  EXPECT_EQ(entries(map), expected);
  for (std::size_t i = 0; i < indices.size(); ++i) EXPECT_EQ(load(map, indices[i]), items[i].get());
  Item other;
  EXPECT_EQ(map.store(64, other).value(), items[3].get());
  EXPECT_EQ(load(map, 64), &other);
  for (const std::uint64_t index : indices) EXPECT_NE(map.erase(index), nullptr);
  for (const std::uint64_t index : indices) EXPECT_EQ(map.erase(index), nullptr);
  EXPECT_EQ(entries(map), Entries{});
}

TEST(IndexMap, NextFindsTheFirstFromAnIndexOn) {
  index_map<Item> map;
  Item a, b;
  ASSERT_TRUE(map.store(5, a));
  ASSERT_TRUE(map.store(100000, b));
  const std::scoped_lock section(map.domain());
  EXPECT_EQ(map.next(0)->index, 5);
  EXPECT_EQ(map.next(5)->index, 5);
  EXPECT_EQ(map.next(6)->index, 100000);
  EXPECT_EQ(map.next(6)->element, &b);
  EXPECT_FALSE(map.next(100001));
  EXPECT_FALSE(map.next(kLast));
}

TEST(IndexMap, AllocatesTheLowestFreeIndexOfARange) {
  index_map<Item> map;
  Item item;
  for (std::uint64_t i = 0; i < 200; ++i) EXPECT_EQ(map.allocate(item).value(), i);
  EXPECT_EQ(map.erase(70), &item);
  EXPECT_EQ(map.erase(3), &item);
  EXPECT_EQ(map.allocate(item, 4).value(), 70);
  EXPECT_EQ(map.allocate(item).value(), 3);
  EXPECT_EQ(map.allocate(item, 10, 199).error(), std::error_code(ENOSPC, std::generic_category()));
  EXPECT_EQ(map.allocate(item, 10, 200).value(), 200);
  EXPECT_EQ(map.allocate(item, 1U << 20U).value(), 1U << 20U);
  EXPECT_EQ(map.allocate(item, kLast).value(), kLast);
  EXPECT_EQ(map.allocate(item, kLast).error(), std::error_code(ENOSPC, std::generic_category()));
  EXPECT_EQ(map.allocate(item, kLast - 1).value(), kLast - 1);
}

TEST(IndexMap, BehavesAsStdMapUnderRandomUpdates) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  index_map<Item> map;
  std::map<std::uint64_t, Item*> model;
  std::vector<Item> items(64);
  for (int step = 0; step < 20000; ++step) {
    // Dense small indices, and now and then one of any size.
    const std::uint64_t index = random() % 8 == 0 ? random() >> random() % 64 : random() % 300;
    Item& item = items[random() % items.size()];
    switch (random() % 4) {
      case 0: {
        auto& slot = model[index];
        ASSERT_EQ(map.store(index, item).value(), slot);
        slot = &item;
        break;
      }
      case 1: {
        const auto found = model.find(index);
        ASSERT_EQ(map.erase(index), found == model.end() ? nullptr : found->second);
        if (found != model.end()) model.erase(found);
        break;
      }
      case 2: {
        std::uint64_t expected = index;
        while (model.contains(expected)) ++expected;
        ASSERT_EQ(map.allocate(item, index).value(), expected);
        model[expected] = &item;
        break;
      }
      default: {
        const auto found = model.find(index);
        ASSERT_EQ(load(map, index), found == model.end() ? nullptr : found->second);
      }
    }
    if (step % 1000 == 0) {
      ASSERT_EQ(entries(map), Entries(model.begin(), model.end()));
    }
  }
  EXPECT_EQ(entries(map), Entries(model.begin(), model.end()));
}

TEST(IndexMap, ATraversalOutlivesTheNodesItIsIn) {
  index_map<Item> map;
  Item low(0), first(4096), second(4097);
  for (Item* item : {&low, &first, &second}) ASSERT_TRUE(map.store(item->value, *item));
  Entries seen;
  {
    const std::scoped_lock section(map.domain());
    map.for_each(false, [&](std::uint64_t index, Item& item) {
      seen.emplace_back(index, &item);
      if (index != 4096) return;
      // Empties the leaf that the traversal is in, and lowers the tree.
      std::thread([&] {
        map.erase(4096);
        map.erase(4097);
      }).join();
    });
  }
  EXPECT_EQ(seen, (Entries{{0, &low}, {4096, &first}}));
  EXPECT_EQ(entries(map), (Entries{{0, &low}}));
}

/// The tree grows, shrinks and loses leaves; what stays is always found, what is found is alive.
TEST(IndexMap, StressReadersFindWhatStaysWhileTheTreeChangesItsHeight) {
  rcu_domain domain;
  index_map<Item> map(domain);
  Item low(7), middle(70);
  ASSERT_TRUE(map.store(7, low));
  ASSERT_TRUE(map.store(70, middle));
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> rounds{0};
  std::atomic<int> missed{0};
  std::atomic<int> freed{0};
  std::vector<std::thread> readers;
  for (int reader = 0; reader < 2; ++reader) {
    readers.emplace_back([&] {
      std::uint64_t at = 0;
      while (!stop.load(std::memory_order_relaxed)) {
        const std::scoped_lock section(domain);
        if (map.load(7) != &low || map.load(70) != &middle) ++missed;
        const auto found = map.next(71);
        if (found && found->element->value.load() == kLast) ++freed;
        Item* const coming = map.load(std::uint64_t{1} << (at++ % 40 + 7));
        if (coming != nullptr && coming->value.load() == kLast) ++freed;
        ++rounds;
      }
    });
  }
  std::mt19937 random(1);
  std::uint64_t updates = 0;
  while (missed == 0 && freed == 0 && (rounds < 20000 || updates < 20000)) {
    const std::uint64_t index = std::uint64_t{1} << (random() % 40 + 7);
    if (Item* const old = map.store(index, *new Item(index)).value()) old->retire({}, domain);
    if (Item* const gone = map.erase(index)) gone->retire({}, domain);
    ++updates;
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(missed, 0);
  EXPECT_EQ(freed, 0);
  rcu_barrier(domain);
}

// Without a worker the thread that retires runs what it can, on the spot.
TEST(IndexMap, ADeleterThatRunsInsideAnUpdateMayUseTheMap) {
  rcu_domain domain;
  index_map<Item> map(domain);
  static Item items[2];
  static index_map<Item>* of_deleter;
  of_deleter = &map;
  (void)map.store(1, items[0]);
  (void)map.store(100'000, items[1]);
  const detail::NoThreads none;
  {
    const std::scoped_lock section(domain);
    rcu_retire(
        &items[1], [](Item*) { (void)of_deleter->erase(100'000); }, domain);
  }
  (void)map.erase(1);  // else waits for itself here
  (void)map.erase(100'000);
  rcu_barrier(domain);
  EXPECT_TRUE(entries(map).empty());
}

}  // namespace
}  // namespace tandem::rcu
