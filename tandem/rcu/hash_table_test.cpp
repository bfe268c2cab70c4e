// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/hash_table.hpp"

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace tandem::rcu {
namespace {

constexpr std::uint64_t kAlive = 0x600D'600D'600D'600D;
constexpr std::uint64_t kPoison = 0xDEAD'DEAD'DEAD'DEAD;

struct Item : hash_node, rcu_obj_base<Item> {
  explicit Item(std::uint64_t number, std::uint64_t with = 0) : key(number), version(with) {}
  ~Item() { state = kPoison; }
  std::atomic<std::uint64_t> state{kAlive};
  const std::uint64_t key;
  const std::uint64_t version;
};
struct KeyOf {
  std::uint64_t operator()(const Item& item) const noexcept { return item.key; }
};
/// Few different hashes: long chains.
struct BadHash {
  std::size_t operator()(std::uint64_t key) const noexcept { return key % 3; }
};
using Table = hash_table<Item, KeyOf>;
using CrowdedTable = hash_table<Item, KeyOf, BadHash>;

constexpr hash_options fixed(std::size_t buckets) {
  return {.buckets = buckets, .min_buckets = 1, .automatic = false};
}

template <class AnyTable>
Item* find(const AnyTable& table, std::uint64_t key) {
  const std::scoped_lock section(table.domain());
  return table.find(key);
}

template <class AnyTable>
std::multiset<std::uint64_t> keys(const AnyTable& table) {
  const std::scoped_lock section(table.domain());
  std::multiset<std::uint64_t> seen;
  table.for_each(false, [&](Item& item) { seen.insert(item.key); });
  return seen;
}

TEST(HashTable, FindsWhatWasInsertedUntilItIsErased) {
  Table table;
  Item a(1), b(2);
  table.insert(a);
  table.insert(b);
  EXPECT_EQ(find(table, 1), &a);
  EXPECT_EQ(find(table, 2), &b);
  EXPECT_EQ(find(table, 3), nullptr);
  EXPECT_EQ(table.size(), 2);
  EXPECT_TRUE(table.erase(a));
  EXPECT_FALSE(table.erase(a));
  EXPECT_EQ(table.erase(std::uint64_t{2}), &b);
  EXPECT_EQ(table.erase(std::uint64_t{2}), nullptr);
  EXPECT_EQ(find(table, 1), nullptr);
  EXPECT_EQ(table.size(), 0);
}

TEST(HashTable, AKeyThatIsThereIsNotInsertedAgainButReplacedWhenAsked) {
  Table table;
  Item first(1, 1), second(1, 2);
  EXPECT_EQ(table.insert_unique(first), nullptr);
  EXPECT_EQ(table.insert_unique(second), &first);
  EXPECT_EQ(find(table, 1), &first);
  EXPECT_EQ(table.insert_or_replace(second), &first);
  EXPECT_EQ(find(table, 1), &second);
  EXPECT_FALSE(table.erase(first));
  EXPECT_EQ(table.size(), 1);
}

TEST(HashTable, HoldsSeveralElementsOfOneKey) {
  Table table;
  Item first(1), second(1);
  table.insert(first);
  table.insert(second);
  EXPECT_EQ(keys(table), (std::multiset<std::uint64_t>{1, 1}));
  EXPECT_TRUE(table.erase(first));
  EXPECT_EQ(find(table, 1), &second);
}

TEST(HashTable, KeysMayBeStrings) {
  struct Named : hash_node {
    explicit Named(std::string of) : name(std::move(of)) {}
    std::string name;
  };
  struct NameOf {
    const std::string& operator()(const Named& named) const noexcept { return named.name; }
  };
  hash_table<Named, NameOf> table;
  Named a("a"), b("b");
  table.insert(a);
  EXPECT_EQ(table.insert_unique(b), nullptr);
  const std::scoped_lock section(table.domain());
  EXPECT_EQ(table.find("a"), &a);
  EXPECT_EQ(table.find("c"), nullptr);
}

template <class AnyTable>
void compare_with_model(AnyTable& table, bool resize) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  std::unordered_map<std::uint64_t, Item*> model;
  std::vector<std::unique_ptr<Item>> kept;  // an erased element is not inserted again
  const auto fresh = [&](std::uint64_t key) -> Item& {
    return *kept.emplace_back(std::make_unique<Item>(key));
  };
  for (int step = 0; step < 20000; ++step) {
    const std::uint64_t key = random() % 500;
    const auto found = model.find(key);
    Item* const there = found == model.end() ? nullptr : found->second;
    switch (random() % 6) {
      case 0: {
        Item& item = fresh(key);
        ASSERT_EQ(table.insert_unique(item), there);
        if (there == nullptr) model[key] = &item;
        break;
      }
      case 1: {
        Item& item = fresh(key);
        ASSERT_EQ(table.insert_or_replace(item), there);
        model[key] = &item;
        break;
      }
      case 2:
        ASSERT_EQ(table.erase(key), there);
        model.erase(key);
        break;
      case 3:
        if (there != nullptr) {
          ASSERT_TRUE(table.erase(*there));
          model.erase(key);
        }
        break;
      default:
        ASSERT_EQ(find(table, key), there);
    }
    if (resize && step % 100 == 0) {
      ASSERT_TRUE(table.resize(std::size_t{1} << (random() % 10)));
    }
    ASSERT_EQ(table.size(), model.size());
  }
  std::multiset<std::uint64_t> expected;
  for (const auto& [key, item] : model) expected.insert(key);
  EXPECT_EQ(keys(table), expected);
}

TEST(HashTable, BehavesAsStdUnorderedMapUnderRandomUpdates) {
  Table table;
  compare_with_model(table, /*resize=*/false);
}

TEST(HashTable, BehavesAsStdUnorderedMapUnderRandomUpdatesAndResizes) {
  Table table(fixed(4));
  compare_with_model(table, /*resize=*/true);
}

TEST(HashTable, BehavesAsStdUnorderedMapWhenAllHashesCollide) {
  CrowdedTable table(fixed(4));
  compare_with_model(table, /*resize=*/true);
}

TEST(HashTable, GrowsAndShrinksByItself) {
  Table table;
  std::vector<std::unique_ptr<Item>> items;
  const auto buckets = [&] {
    const std::scoped_lock section(table.domain());
    return table.bucket_count();
  };
  EXPECT_EQ(buckets(), 16);
  for (std::uint64_t key = 0; key < 4096; ++key) {
    items.push_back(std::make_unique<Item>(key));
    table.insert(*items.back());
    if (key % 16 == 0) rcu_barrier();  // the next resize may come when the last has no reader left
  }
  EXPECT_GE(buckets(), 512);
  EXPECT_LE(buckets(), 2048);
  for (std::uint64_t key = 0; key < 4096; ++key) {
    EXPECT_EQ(find(table, key), items[key].get());
    EXPECT_EQ(table.erase(key), items[key].get());
    if (key % 16 == 0) rcu_barrier();
  }
  EXPECT_LE(buckets(), 64);
}

/// A reader that is within the old buckets while they are replaced sees the rest of them.
TEST(HashTable, ATraversalOutlivesAResize) {
  rcu_domain domain;
  Table table(fixed(64), domain);
  std::vector<std::unique_ptr<Item>> items;
  for (std::uint64_t key = 0; key < 256; ++key) {
    items.push_back(std::make_unique<Item>(key));
    table.insert(*items.back());
  }
  std::multiset<std::uint64_t> seen;
  {
    const std::scoped_lock section(domain);
    table.for_each(false, [&](Item& item) {
      if (seen.empty()) std::thread([&] { EXPECT_TRUE(table.resize(256)); }).join();
      seen.insert(item.key);
    });
    EXPECT_EQ(table.bucket_count(), 256);
  }
  std::multiset<std::uint64_t> expected;
  for (const auto& item : items) expected.insert(item->key);
  EXPECT_EQ(seen, expected);
}

/// Says that it was asked, and then holds its caller up until it is let go.
struct HoldingEqual {
  bool operator()(std::uint64_t left, std::uint64_t right) const noexcept {
    asked->store(true);
    while (!let_go->load()) std::this_thread::yield();
    return left == right;
  }
  std::atomic<bool>* asked;
  std::atomic<bool>* let_go;
};

/// Updates are noexcept: a thread that is cancelled while it waits for another's goes on.
TEST(HashTable, AnUpdateThatWaitsForAnotherIsNotCancelled) {
  std::atomic<bool> asked{false}, let_go{false}, done{false};
  hash_table<Item, KeyOf, BadHash, HoldingEqual> table(fixed(1), rcu_default_domain(), {}, {},
                                                       HoldingEqual{&asked, &let_go});
  Item first(1), second(4);
  table.insert(first);
  std::thread holder([&] { EXPECT_EQ(table.erase(1), &first); });
  while (!asked) std::this_thread::yield();
  std::thread waiter([&] {
    ::pthread_cancel(::pthread_self());
    table.insert(second);
    done = true;
    ::pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // it has long begun to nap
  let_go = true;
  holder.join();
  waiter.join();
  EXPECT_TRUE(done);
  EXPECT_EQ(table.erase(4), &second);
}

/// Readers, updaters and resizes at once. What stays is always found; what is found is alive, has
/// the key that was asked for, and its version never goes back.
template <class AnyTable>
void stress(AnyTable& table, std::uint64_t staying_keys, bool resizes) {
  constexpr std::uint64_t kMoving = 64;  // keys from 1 << 32 on, which come and go
  constexpr std::uint64_t kFirst = std::uint64_t{1} << 32;
  constexpr std::uint64_t kReplaced = 8;  // keys from 1 << 33 on, which are replaced
  constexpr std::uint64_t kFirstReplaced = std::uint64_t{1} << 33;
  rcu_domain& domain = table.domain();
  std::vector<std::unique_ptr<Item>> staying;
  for (std::uint64_t key = 0; key < staying_keys; ++key) {
    staying.push_back(std::make_unique<Item>(key));
    table.insert(*staying.back());
  }
  for (std::uint64_t i = 0; i < kReplaced; ++i) table.insert(*new Item(kFirstReplaced + i, 1));
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> rounds{0}, updates{0};
  std::atomic<int> missed{0}, freed{0}, back{0}, present_after_erase{0};
  const auto wrong = [&] { return missed + freed + back + present_after_erase; };
  std::vector<std::thread> threads;
  for (unsigned reader = 0; reader < 2; ++reader) {
    threads.emplace_back([&, reader] {
      std::mt19937_64 random(reader);
      std::vector<std::uint64_t> versions(kReplaced, 0);
      while (!stop.load(std::memory_order_relaxed)) {
        const std::scoped_lock section(domain);
        const std::uint64_t key = random() % staying_keys;
        if (table.find(key) != staying[key].get()) ++missed;
        const std::uint64_t moving = kFirst + random() % kMoving;
        const Item* const found = table.find(moving);
        if (found != nullptr && (found->state != kAlive || found->key != moving)) ++freed;
        const std::uint64_t which = random() % kReplaced;
        const Item* const replaced = table.find(kFirstReplaced + which);
        if (replaced == nullptr) {
          ++missed;
        } else if (replaced->state != kAlive) {
          ++freed;
        } else if (replaced->version < versions[which]) {
          ++back;
        } else {
          versions[which] = replaced->version;
        }
        ++rounds;
      }
    });
  }
  for (unsigned updater = 0; updater < 2; ++updater) {
    threads.emplace_back([&, updater] {
      std::mt19937_64 random(100 + updater);
      std::uint64_t version = 1;
      while (!stop.load(std::memory_order_relaxed)) {
        // Keys of this updater alone: what it erased stays erased.
        const std::uint64_t key = kFirst + (random() % (kMoving / 2)) * 2 + updater;
        if (Item* const old = table.erase(key)) {
          {
            const std::scoped_lock section(domain);
            if (table.find(key) != nullptr) ++present_after_erase;
          }
          old->retire({}, domain);
        } else {
          auto fresh = std::make_unique<Item>(key);
          if (table.insert_unique(*fresh) == nullptr) {
            const std::scoped_lock section(domain);
            if (table.find(key) != fresh.release()) ++missed;
          }
        }
        if (updater == 0) {
          const std::uint64_t replaced = kFirstReplaced + random() % kReplaced;
          Item* const old = table.insert_or_replace(*new Item(replaced, ++version));
          if (old != nullptr) old->retire({}, domain);
        }
        ++updates;
      }
    });
  }
  std::mt19937 random(1);
  for (int resized = 0; wrong() == 0 && (resized < 300 || rounds < 20000 || updates < 20000);
       ++resized) {
    if (resizes) {
      EXPECT_TRUE(table.resize(std::size_t{1} << random() % 9));
    } else {
      std::this_thread::yield();
    }
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(missed, 0);
  EXPECT_EQ(freed, 0);
  EXPECT_EQ(back, 0);
  EXPECT_EQ(present_after_erase, 0);
  const std::multiset<std::uint64_t> left = keys(table);
  EXPECT_EQ(left.size(), table.size());
  for (const std::uint64_t key : left) {
    Item* const item = table.erase(key);
    ASSERT_NE(item, nullptr);
    if (key >= kFirst) item->retire({}, domain);
  }
  EXPECT_EQ(table.size(), 0);
  rcu_barrier(domain);
}

TEST(HashTable, StressReadersFindWhatStaysDuringUpdatesAndResizes) {
  rcu_domain domain;
  Table table(fixed(16), domain);
  stress(table, 400, /*resizes=*/true);
}

TEST(HashTable, StressReadersFindWhatStaysInChains) {
  rcu_domain domain;
  CrowdedTable table(fixed(4), domain);
  stress(table, 40, /*resizes=*/true);
}

TEST(HashTable, StressReadersFindWhatStaysWhileItResizesItself) {
  Table table(hash_options{.buckets = 1, .min_buckets = 1});
  stress(table, 40, /*resizes=*/false);
}

}  // namespace
}  // namespace tandem::rcu
