// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/detail/shared_cache.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <future>
#include <new>
#include <thread>

#include "tandem/base/result.hpp"

namespace tandem::kxo::detail {
namespace {

using namespace std::chrono_literals;

using Cache = SharedCache<int, int>;
using Thing = std::shared_ptr<const int>;

Result<Thing> seven() { return std::make_shared<const int>(7); }
Result<Thing> not_asked() {
  ADD_FAILURE() << "was made already";
  return errno_error(EIO);
}

TEST(SharedCacheTest, WhatSomebodyHasIsNotMadeAgain) {
  Cache cache;
  const auto first = cache.get(1, seven).value();
  EXPECT_EQ(cache.get(1, not_asked).value(), first);
  EXPECT_NE(cache.get(2, seven).value(), first);
}

TEST(SharedCacheTest, WhatNobodyHasAnyMoreIsMadeAgain) {
  Cache cache;
  int made = 0;
  for (int i = 0; i < 2; ++i) {
    (void)cache.get(1, [&] {
      ++made;
      return seven();
    });
  }
  EXPECT_EQ(made, 2);
}

TEST(SharedCacheTest, WhoAsksForTheSameWaitsAndSharesIt) {
  Cache cache;
  std::promise<void> begun, go_on;
  auto first = std::async(std::launch::async, [&] {
    return cache.get(1, [&] {
      begun.set_value();
      go_on.get_future().wait();
      return seven();
    });
  });
  begun.get_future().wait();
  auto second = std::async(std::launch::async, [&] { return cache.get(1, not_asked); });
  // It waits, or did not, and then its answer is there.
  while (cache.waiting() == 0 && second.wait_for(0s) != std::future_status::ready) {
    std::this_thread::yield();
  }
  EXPECT_EQ(cache.waiting(), 1);
  go_on.set_value();
  const auto thing = first.get().value();
  EXPECT_EQ(second.get().value(), thing);
}

TEST(SharedCacheTest, WhoAsksForAnotherDoesNotWait) {
  Cache cache;
  const auto there = cache.get(3, seven).value();
  const auto slow = cache.get(1, [&]() -> Result<Thing> {
    // Were they to wait, this would not end.
    std::jthread([&] {
      EXPECT_TRUE(cache.get(2, seven));
      EXPECT_EQ(cache.get(3, not_asked).value(), there);
    }).join();
    return seven();
  });
  EXPECT_TRUE(slow);
}

TEST(SharedCacheTest, AfterAFailureTheNextOneTries) {
  Cache cache;
  EXPECT_FALSE(cache.get(1, []() -> Result<Thing> { return errno_error(ENOSPC); }));
  EXPECT_THROW((void)cache.get(1, []() -> Result<Thing> { throw std::bad_alloc(); }),
               std::bad_alloc);
  EXPECT_TRUE(cache.get(1, seven));
}

}  // namespace
}  // namespace tandem::kxo::detail
