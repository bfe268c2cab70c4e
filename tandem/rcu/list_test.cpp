// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/list.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "tandem/base/mutex.hpp"

namespace tandem::rcu {
namespace {

struct ByAge;
struct Item : list_link<>, list_link<ByAge>, rcu_obj_base<Item> {
  explicit Item(int number = 0) : value(number) {}
  ~Item() { value = -1; }
  std::atomic<int> value;
};

std::vector<int> values(const rcu_list<Item>& list) {
  const std::scoped_lock section(list.domain());
  std::vector<int> seen;
  for (const Item& item : traverse(list)) seen.push_back(item.value);
  return seen;
}

TEST(RcuList, KeepsTheOrderOfItsInsertions) {
  rcu_list<Item> list;
  EXPECT_TRUE(list.empty());
  Item a(1), b(2), c(3), d(4);
  list.push_back(b);
  list.push_front(a);
  list.push_back(d);
  list.insert(d, c);
  EXPECT_FALSE(list.empty());
  EXPECT_EQ(values(list), (std::vector{1, 2, 3, 4}));
  Item e(5);
  list.replace(b, e);
  EXPECT_EQ(values(list), (std::vector{1, 5, 3, 4}));
  for (Item* item : {&a, &e, &c, &d}) list.erase(*item);
  EXPECT_TRUE(list.empty());
}

TEST(RcuList, AnElementMayBeInListsOfSeveralTags) {
  rcu_list<Item> list;
  rcu_list<Item, ByAge> by_age;
  Item a(1), b(2);
  list.push_back(a);
  list.push_back(b);
  by_age.push_back(b);
  list.erase(b);
  const std::scoped_lock section(rcu_default_domain());
  int count = 0;
  by_age.for_each(false, [&](Item& item) {
    EXPECT_EQ(&item, &b);
    ++count;
  });
  EXPECT_EQ(count, 1);
}

TEST(RcuList, SpliceMovesEverythingToTheFront) {
  rcu_list<Item> list;
  rcu_list<Item> other;
  Item a(1), b(2), c(3);
  list.push_back(c);
  other.push_back(a);
  other.push_back(b);
  list.splice_front(other);
  EXPECT_TRUE(other.empty());
  EXPECT_EQ(values(list), (std::vector{1, 2, 3}));
  list.splice_front(other);
  list.erase(b);
  other.push_back(b);
  EXPECT_EQ(values(list), (std::vector{1, 3}));
}

TEST(RcuList, BehavesAsStdListUnderRandomUpdates) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  rcu_list<Item> list;
  std::list<int> model;
  std::vector<std::unique_ptr<Item>> present;
  for (int step = 0; step < 3000; ++step) {
    const auto what = random() % 5;
    const std::size_t which = present.empty() ? 0 : random() % present.size();
    const auto at = [&] { return std::find(model.begin(), model.end(), present[which]->value); };
    auto fresh = std::make_unique<Item>(step);
    if (what == 0) {
      list.push_front(*fresh);
      model.push_front(step);
    } else if (what == 1) {
      list.push_back(*fresh);
      model.push_back(step);
    } else if (present.empty()) {
      continue;
    } else if (what == 2) {
      list.insert(*present[which], *fresh);
      model.insert(at(), step);
    } else if (what == 3) {
      *at() = step;
      list.replace(*present[which], *fresh);
      std::swap(present[which], fresh);
      continue;
    } else {
      model.erase(at());
      list.erase(*present[which]);
      present.erase(present.begin() + static_cast<std::ptrdiff_t>(which));
      continue;
    }
    present.push_back(std::move(fresh));
    if (step % 50 == 0) {
      ASSERT_EQ(values(list), std::vector(model.begin(), model.end()));
    }
  }
  EXPECT_EQ(values(list), std::vector(model.begin(), model.end()));
}

TEST(RcuList, AReaderAtAnErasedElementGoesOn) {
  rcu_list<Item> list;
  Item a(1), b(2), c(3);
  for (Item* item : {&a, &b, &c}) list.push_back(*item);
  const std::scoped_lock section(rcu_default_domain());
  auto at = list.traverse(false).begin();
  ++at;
  list.erase(b);
  list.erase(a);
  EXPECT_EQ(at->value, 2);
  ++at;
  EXPECT_EQ(&*at, &c);
  ++at;
  EXPECT_TRUE(at == list.traverse(false).end());
}

TEST(RcuList, ForEachMayEraseAndRetireWhatItIsGiven) {
  rcu_list<Item> list;
  Mutex mutex;
  for (int i = 0; i < 8; ++i) list.push_back(*new Item(i));
  const MutexLock lock(mutex);
  int count = 0;
  for_each(list, held(mutex), [&](Item& item) {
    ++count;
    list.erase(item);
    item.retire();
    rcu_synchronize();
    rcu_barrier();
  });
  EXPECT_EQ(count, 8);
  EXPECT_TRUE(list.empty());
}

TEST(RcuList, StressTraversalsSeeWhatStaysInOrderAndNothingFreed) {
  rcu_domain domain;
  rcu_list<Item> list(domain);
  constexpr int kStaying = 16;
  std::vector<std::unique_ptr<Item>> staying;
  for (int i = 0; i < kStaying; ++i) {
    staying.push_back(std::make_unique<Item>(i + 1));
    list.push_back(*staying.back());
  }
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> rounds{0};
  std::atomic<int> wrong{0};
  std::vector<std::thread> readers;
  for (int reader = 0; reader < 2; ++reader) {
    readers.emplace_back([&] {
      while (!stop.load(std::memory_order_relaxed)) {
        const std::scoped_lock section(domain);
        int next = 1;
        int steps = 0;
        for (const Item& item : traverse(list)) {
          const int value = item.value.load(std::memory_order_relaxed);
          if (value == -1 || ++steps > 1000) ++wrong;  // freed, or going round in circles
          if (value >= 1 && value <= kStaying && value != next++) ++wrong;
          if (wrong != 0) return;
        }
        if (next != kStaying + 1) ++wrong;
        ++rounds;
      }
    });
  }
  std::mt19937 random(1);
  std::vector<Item*> coming;
  while (wrong == 0 && rounds < 4000) {
    if (coming.size() < 8) {
      coming.push_back(new Item(1000));
      list.insert(*staying[random() % kStaying], *coming.back());
    } else if (random() % 2 == 0) {
      Item* const old = coming.back();
      coming.back() = new Item(2000);
      list.replace(*old, *coming.back());
      old->retire({}, domain);
    } else {
      std::swap(coming[random() % coming.size()], coming.back());
      list.erase(*coming.back());
      coming.back()->retire({}, domain);
      coming.pop_back();
    }
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0);
  for (Item* item : coming) {
    list.erase(*item);
    item->retire({}, domain);
  }
  rcu_barrier(domain);
}

/// A reader among the elements of the list that is emptied must come to that list's end.
TEST(RcuList, ASpliceWaitsForReadersOfTheEmptiedList) {
  rcu_domain domain;
  rcu_list<Item> list(domain);
  rcu_list<Item> other(domain);
  Item a(1), b(2), c(3);
  other.push_back(a);
  other.push_back(b);
  list.push_back(c);
  std::atomic<bool> at_first{false};
  std::atomic<bool> spliced{false};
  std::atomic<int> seen{0};
  std::thread reader([&] {
    const std::scoped_lock section(domain);
    for (const Item& item : traverse(other)) {
      ++seen;
      if (item.value == 1) {
        at_first = true;
        // The updater has unhooked the elements, and must not get further.
        while (!other.empty()) std::this_thread::yield();
        for (int i = 0; i < 200 && !spliced; ++i) std::this_thread::yield();
      }
      if (item.value == 3) break;
    }
  });
  while (!at_first) std::this_thread::yield();
  list.splice_front(other);
  spliced = true;
  reader.join();
  EXPECT_EQ(seen, 2);
  EXPECT_EQ(values(list), (std::vector{1, 2, 3}));
}

}  // namespace
}  // namespace tandem::rcu
