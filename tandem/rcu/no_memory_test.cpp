// SPDX-License-Identifier: Apache-2.0
// What is retired where no memory is left.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

#include "tandem/rcu/call.hpp"
#include "tandem/rcu/detail/test_memory.hpp"
#include "tandem/rcu/detail/test_objects.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/stats.hpp"

namespace tandem::rcu::detail {
constinit thread_local bool no_memory = false;
constinit thread_local bool no_memory_at_all = false;
constinit thread_local std::uint64_t memory_calls = 0;
}  // namespace tandem::rcu::detail

using tandem::rcu::detail::memory_calls;
using tandem::rcu::detail::no_memory;
using tandem::rcu::detail::no_memory_at_all;

#if !defined(__SANITIZE_ADDRESS__)
// NOLINTBEGIN(misc-new-delete-overloads)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wunknown-warning-option"
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
namespace {

void* allocate(std::size_t size, std::align_val_t align) noexcept {
  ++memory_calls;
  const auto step = static_cast<std::size_t>(align);
  return std::aligned_alloc(step, (size + step - 1) & ~(step - 1));
}
void* allocate(std::size_t size) noexcept {
  ++memory_calls;
  return std::malloc(size);
}
void give_back(void* memory) noexcept {
  ++memory_calls;
  std::free(memory);
}
}  // namespace

void* operator new(std::size_t size, std::align_val_t align, const std::nothrow_t&) noexcept {
  return no_memory ? nullptr : allocate(size, align);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return no_memory ? nullptr : allocate(size);
}
void* operator new(std::size_t size, std::align_val_t align) {
  void* const memory = no_memory_at_all ? nullptr : allocate(size, align);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* operator new(std::size_t size) {
  void* const memory = no_memory_at_all ? nullptr : allocate(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { give_back(memory); }
void operator delete(void* memory, std::size_t) noexcept { give_back(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { give_back(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { give_back(memory); }
#pragma GCC diagnostic pop
// NOLINTEND(misc-new-delete-overloads)
#endif

namespace tandem::rcu {
namespace {

using detail::destroyed;
using detail::kOwnOperators;
using detail::Plain;
using detail::wait_until;
using detail::WithBase;

// [saferecl.rcu.domain.general], [saferecl.rcu.base]: lock() and retire() do not throw.
TEST(Memory, TheFirstUseOfTheDefaultDomainNeedsNone) {
  if (!kOwnOperators) GTEST_SKIP() << "AddressSanitizer's operators are in the way";
  if (std::getenv("TANDEM_FIRST_USE") == nullptr) {  // in a process of its own
    EXPECT_EQ(detail::in_child([] {
                ::setenv("TANDEM_FIRST_USE", "1", 1);
                return ::execl("/proc/self/exe", "first", "--gtest_filter=Memory.TheFirstUse*",
                               nullptr);
              }),
              0);
    return;
  }
  struct Object : rcu_obj_base<Object, void (*)(Object*)> {
    int deleted = 0;
  } object;
  no_memory = no_memory_at_all = true;
  { const std::scoped_lock section(rcu_default_domain()); }
  object.retire([](Object* self) { ++self->deleted; });
  rcu_synchronize();
  rcu_barrier();
  no_memory = no_memory_at_all = false;
  EXPECT_EQ(object.deleted, 1);
}

TEST(Free, WithoutMemoryAHeadIsQueuedAllTheSameAndTheOtherKindWaits) {
  if (!kOwnOperators) GTEST_SKIP() << "AddressSanitizer: memory does not run out";
  rcu_domain domain;
  destroyed = 0;
  domain.lock();
  no_memory = true;
  for (int i = 0; i < 10; ++i) {
    rcu::free(new WithBase, domain);  // does not block: we are in a section
  }
  EXPECT_EQ(destroyed, 0);
  domain.unlock();
  rcu::free(new Plain, domain);  // waits for the grace period itself
  EXPECT_GE(destroyed, 1);
  no_memory = false;
  EXPECT_EQ(stats(domain).overflowed, 10u);
  rcu_barrier(domain);
  EXPECT_EQ(destroyed, 11);
}

// Nor does what has no result to say so with: also where the thread has no reader yet.
TEST(Free, WithoutMemoryAThreadsFirstOnesInADomainAreQueuedAllTheSame) {
  if (!kOwnOperators) GTEST_SKIP() << "AddressSanitizer: memory does not run out";
  rcu_domain domain;
  struct Retired : rcu_obj_base<Retired> {
    ~Retired() { ++destroyed; }
  };
  destroyed = 0;
  std::thread([&] {
    auto* const retired = new Retired;
    auto* const freed = new WithBase;
    no_memory = no_memory_at_all = true;
    retired->retire({}, domain);
    rcu::free(freed, domain);
    no_memory = no_memory_at_all = false;
  }).join();
  EXPECT_EQ(stats(domain).overflowed, 2u);
  rcu_barrier(domain);
  EXPECT_EQ(destroyed, 2);
}

TEST(MemoryDeath, AFirstSectionWithoutMemoryIsReported) {
  if (!kOwnOperators) GTEST_SKIP() << "AddressSanitizer: memory does not run out";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        rcu_domain domain;
        no_memory = no_memory_at_all = true;
        const std::scoped_lock section(domain);
      },
      "there_is_memory");
}

TEST(Free, WithoutMemoryABarrierInsideASectionStillFindsWhatWasRetired) {
  if (!kOwnOperators) GTEST_SKIP() << "AddressSanitizer: memory does not run out";
  rcu_domain domain;
  struct Retired : rcu_obj_base<Retired> {
    ~Retired() { ++destroyed; }
  };
  destroyed = 0;
  no_memory = true;
  rcu::free(new WithBase, domain);
  for (int i = 0; i < 3; ++i) (new Retired)->retire({}, domain);
  no_memory = false;
  {
    const std::scoped_lock section(domain);
    rcu_barrier(domain);
    EXPECT_GE(destroyed, 3);
  }
  rcu_barrier(domain);
  EXPECT_EQ(destroyed, 4);
}

TEST(Free, WithoutMemoryABarrierInADeleterStillFindsWhatWaits) {
  if (!kOwnOperators) GTEST_SKIP() << "AddressSanitizer: memory does not run out";
  rcu_domain domain;
  struct Retired : rcu_obj_base<Retired> {
    ~Retired() { ++destroyed; }
  };
  destroyed = 0;
  std::atomic<bool> running{false};
  std::atomic<bool> spilled{false};
  std::atomic<int> seen{0};
  int object = 0;
  rcu_retire(
      &object,
      [&](int*) {
        running = true;
        wait_until(spilled);
        rcu_barrier(domain);
        seen = destroyed.load();
      },
      domain);
  wait_until(running);
  std::thread([&] {  // has no queue
    no_memory = true;
    rcu::free(new WithBase, domain);
    for (int i = 0; i < 3; ++i) (new Retired)->retire({}, domain);
    no_memory = false;
  })
      .join();
  EXPECT_EQ(stats(domain).overflowed, 4u);
  spilled = true;
  rcu_barrier(domain);
  EXPECT_EQ(seen, 4);
}

// [saferecl.rcu.domain.func], rcu_retire, Throws: and then nothing is scheduled.
TEST(RcuRetire, ThrowsWhereThereIsNoMemoryAndSchedulesNothing) {
  if (!kOwnOperators) GTEST_SKIP() << "AddressSanitizer: memory does not run out";
  rcu_domain domain;
  { const std::scoped_lock section(domain); }  // has what the first one needs
  destroyed = 0;
  const auto object = std::make_unique<Plain>();
  no_memory = no_memory_at_all = true;
  bool thrown = false;
  try {
    rcu_retire(object.get(), std::default_delete<Plain>(), domain);
  } catch (const std::bad_alloc&) {
    thrown = true;
  }
  no_memory = no_memory_at_all = false;
  EXPECT_TRUE(thrown);
  rcu_barrier(domain);
  EXPECT_EQ(destroyed, 0);
}

}  // namespace
}  // namespace tandem::rcu
