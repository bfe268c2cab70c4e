// SPDX-License-Identifier: Apache-2.0
// What is retired where no memory is left.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

#include "tandem/rcu/call.hpp"
#include "tandem/rcu/detail/test_objects.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/stats.hpp"

namespace {
thread_local bool no_memory = false;
thread_local bool no_memory_at_all = false;  // also where that is an exception
}  // namespace

// AddressSanitizer brings operators of its own, which half a set of ours would not fit.
#if defined(__SANITIZE_ADDRESS__)
namespace {
constexpr bool kMemoryCanRunOut = false;
}
#else
namespace {

constexpr bool kMemoryCanRunOut = true;
}
// NOLINTBEGIN(misc-new-delete-overloads)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wunknown-warning-option"
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
namespace {

void* aligned(std::size_t size, std::align_val_t align) {
  const auto step = static_cast<std::size_t>(align);
  return std::aligned_alloc(step, (size + step - 1) & ~(step - 1));
}
}  // namespace

void* operator new(std::size_t size, std::align_val_t align, const std::nothrow_t&) noexcept {
  return no_memory ? nullptr : aligned(size, align);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return no_memory ? nullptr : std::malloc(size);
}
void* operator new(std::size_t size, std::align_val_t align) {
  void* const memory = no_memory_at_all ? nullptr : aligned(size, align);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* operator new(std::size_t size) {
  void* const memory = no_memory_at_all ? nullptr : std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
#pragma GCC diagnostic pop
// NOLINTEND(misc-new-delete-overloads)
#endif

namespace tandem::rcu {
namespace {

using detail::destroyed;
using detail::Plain;
using detail::WithBase;

using detail::destroyed;
using detail::Plain;
using detail::wait_until;
using detail::WithBase;

// [saferecl.rcu.domain.general], [saferecl.rcu.base]: lock() and retire() do not throw.
TEST(Memory, TheFirstUseOfTheDefaultDomainNeedsNone) {
  if (!kMemoryCanRunOut) GTEST_SKIP() << "AddressSanitizer's operators are in the way";
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
  if (!kMemoryCanRunOut) GTEST_SKIP() << "AddressSanitizer: memory does not run out";
  rcu_domain domain;
  destroyed = 0;
  no_memory = true;
  domain.lock();
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

TEST(Free, WithoutMemoryABarrierInsideASectionStillFindsWhatWasRetired) {
  if (!kMemoryCanRunOut) GTEST_SKIP() << "AddressSanitizer: memory does not run out";
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
  if (!kMemoryCanRunOut) GTEST_SKIP() << "AddressSanitizer: memory does not run out";
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
  if (!kMemoryCanRunOut) GTEST_SKIP() << "AddressSanitizer: memory does not run out";
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
