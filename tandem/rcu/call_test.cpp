// SPDX-License-Identifier: Apache-2.0
// Callbacks: call(), free(), backpressure, where they run; stall reports.
#include "tandem/rcu/call.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/grace_period.hpp"
#include "tandem/rcu/offload.hpp"
#include "tandem/rcu/stall.hpp"
#include "tandem/rcu/stats.hpp"

// ---- Memory that can run out ------------------------------------------------------------------

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

using namespace std::chrono_literals;
using detail::wait_until;

std::atomic<int> destroyed{0};

struct Plain {
  ~Plain() { ++destroyed; }
  long payload = 0;
};
struct WithBase : callback_head {
  ~WithBase() { ++destroyed; }
  long payload = 0;
};
struct WithMember {
  ~WithMember() { ++destroyed; }
  long payload = 7;
  callback_head rcu;
};

TEST(Call, RunsTheFunctionOnceAfterTheGracePeriod) {
  rcu_domain domain;
  struct Counted : callback_head {
    std::atomic<int> runs{0};
  };
  std::vector<Counted> all(5000);
  domain.lock();
  for (Counted& one : all) {
    call(
        one, [](callback_head* head) noexcept { ++static_cast<Counted*>(head)->runs; }, sizeof one,
        domain);
  }
  std::this_thread::sleep_for(5ms);
  for (const Counted& one : all) EXPECT_EQ(one.runs, 0);
  domain.unlock();
  rcu_barrier(domain);
  for (const Counted& one : all) ASSERT_EQ(one.runs, 1);
}

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

TEST(Call, MayBeCalledAgainFromItsCallback) {
  rcu_domain domain;
  struct Again : callback_head {
    rcu_domain* domain = nullptr;
    std::atomic<int> runs{0};
  } again;
  again.domain = &domain;
  const auto function = [](callback_head* head) noexcept {
    auto* const self = static_cast<Again*>(head);
    struct Local {
      static void run(callback_head* inner) noexcept { ++static_cast<Again*>(inner)->runs; }
    };
    if (++self->runs < 3) call(*self, Local::run, sizeof *self, *self->domain);
  };
  call(again, function, sizeof again, domain);
  while (again.runs < 2) std::this_thread::yield();
  rcu_barrier(domain);
  EXPECT_EQ(again.runs, 2);
}

TEST(Free, DeletesObjectsOfEveryShapeAfterTheGracePeriod) {
  rcu_domain domain;
  destroyed = 0;
  domain.lock();
  for (int i = 0; i < 1000; ++i) {
    rcu::free(new Plain, domain);
    rcu::free(new WithBase, domain);
    rcu::free<&WithMember::rcu>(new WithMember, domain);
  }
  rcu::free(static_cast<Plain*>(nullptr), domain);
  rcu::free(static_cast<WithBase*>(nullptr), domain);
  EXPECT_EQ(destroyed, 0);
  domain.unlock();
  rcu_barrier(domain);
  EXPECT_EQ(destroyed, 3000);
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

TEST(Worker, RunsOneCallbackSoonAndThenSleeps) {
  rcu_domain domain;
  struct Timed : callback_head {
    std::atomic<bool> done{false};
  };
  for (int i = 0; i < 3; ++i) {
    Timed one;
    call(
        one, [](callback_head* head) noexcept { static_cast<Timed*>(head)->done = true; },
        sizeof one, domain);
    wait_until(one.done);
    std::this_thread::sleep_for(20ms);
  }
  const auto voluntary = [] {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nvcsw;
  };
  const long before = voluntary();
  std::this_thread::sleep_for(200ms);
  EXPECT_LE(voluntary() - before, 5) << "an idle worker polls";
}

TEST(Worker, AFloodGrowsTheBacklogToABoundOnly) {
  rcu_domain domain;
  destroyed = 0;
  std::uint64_t most = 0;
  for (int i = 0; i < 300000; ++i) {
    rcu::free(new Plain, domain);
    if (i % 1000 == 0) most = std::max(most, stats(domain).waiting_words);
  }
  rcu_barrier(domain);
  EXPECT_EQ(destroyed, 300000);
  EXPECT_LT(most, 65536u + 4096u);
}

TEST(Worker, BigObjectsCountByTheirBytes) {
  rcu_domain domain;
  struct Big {
    char bytes[100000];
  };
  std::uint64_t most = 0;
  for (int i = 0; i < 2000; ++i) {
    rcu::free(new Big, domain);
    most = std::max(most, stats(domain).waiting_bytes);
  }
  rcu_barrier(domain);
  EXPECT_LT(most, std::uint64_t{18} << 20);
}

TEST(Worker, AFloodInsideASectionIsNotHeldBackAndBehindItOnlySlowly) {
  rcu_domain domain;
  destroyed = 0;
  {
    const std::scoped_lock section(domain);
    for (int i = 0; i < 100000; ++i) rcu::free(new Plain, domain);  // must return
  }
  rcu_barrier(domain);
  EXPECT_EQ(destroyed, 100000);
  EXPECT_EQ(stats(domain).throttled, 0u);
}

// ---- Where callbacks run ----------------------------------------------------------------------

cpu_set_t all_cpus() {
  cpu_set_t cpus;
  ::sched_getaffinity(0, sizeof cpus, &cpus);
  return cpus;
}

struct Where : callback_head {
  std::thread::id thread;
  std::atomic<int> runs{0};
  static void run(callback_head* head) noexcept {
    auto* const self = static_cast<Where*>(head);
    self->thread = std::this_thread::get_id();
    ++self->runs;
  }
};

TEST(Offload, CallbacksRunInTheThreadsSlackOrOnTheWorkerAsTold) {
  rcu_domain domain;
  offload_options options;
  options.cpus = all_cpus();
  for (const bool offloaded : {false, true, false, true}) {
    options.offloaded = offloaded;
    ASSERT_TRUE(set_offload(options, domain));
    // Threads notice within a few hundred calls.
    std::vector<Where> notice(1024);
    for (Where& one : notice) call(one, Where::run, sizeof one, domain);
    rcu_barrier(domain);
    std::vector<Where> all(4096);
    std::size_t own = 0;
    for (Where& one : all) {
      call(one, Where::run, sizeof one, domain);
      if (!offloaded) run_callbacks(domain);
    }
    while (all.back().runs == 0) {  // not by rcu_barrier(), which runs callbacks itself
      rcu_synchronize(domain);
      if (!offloaded) run_callbacks(domain);
    }
    rcu_barrier(domain);
    for (const Where& one : all) {
      ASSERT_EQ(one.runs, 1);
      own += one.thread == std::this_thread::get_id() ? 1 : 0;
    }
    if (offloaded) {
      EXPECT_EQ(own, 0u);
    } else {
      EXPECT_GT(own, all.size() / 2);
    }
  }
}

TEST(Offload, WhatAThreadLeavesIsRunForIt) {
  rcu_domain domain;
  offload_options options;
  options.cpus = all_cpus();
  options.offloaded = false;
  ASSERT_TRUE(set_offload(options, domain));
  Where one;
  call(one, Where::run, sizeof one, domain);
  while (one.runs == 0) std::this_thread::sleep_for(1ms);
  EXPECT_NE(one.thread, std::this_thread::get_id());
}

TEST(Offload, TogglingUnderLoadLosesNothing) {
  rcu_domain domain;
  std::atomic<bool> stop{false};
  std::atomic<long> called{0};
  std::vector<std::thread> threads;
  destroyed = 0;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        for (int k = 0; k < 100; ++k) rcu::free(new WithBase, domain);
        called += 100;
        run_callbacks(domain);
      }
    });
  }
  offload_options options;
  options.cpus = all_cpus();
  for (int i = 0; i < 50; ++i) {
    options.offloaded = i % 2 == 0;
    ASSERT_TRUE(set_offload(options, domain));
    rcu_barrier(domain);
  }
  stop = true;
  for (auto& thread : threads) thread.join();
  rcu_barrier(domain);
  EXPECT_EQ(destroyed, called);
}

TEST(Offload, RefusesGroupsThatOverlapInPart) {
  rcu_domain domain;
  offload_options options;
  EXPECT_FALSE(set_offload(options, domain)) << "empty";
  CPU_SET(0, &options.cpus);
  CPU_SET(1, &options.cpus);
  ASSERT_TRUE(set_offload(options, domain));
  ASSERT_TRUE(set_offload(options, domain)) << "the same group again";
  CPU_SET(2, &options.cpus);
  EXPECT_FALSE(set_offload(options, domain));
  for (std::size_t i = 0; i < 6; ++i) {
    offload_options more;
    CPU_SET(10 + i, &more.cpus);
    ASSERT_TRUE(set_offload(more, domain)) << i;
  }
  offload_options more;
  CPU_SET(20, &more.cpus);
  EXPECT_FALSE(set_offload(more, domain)) << "more than seven groups";
}

TEST(Offload, WorkersRunWhereAndHowTheyAreTold) {
  rcu_domain domain;
  offload_options options;
  options.cpus = all_cpus();
  options.worker_cpus.emplace();
  CPU_ZERO(&*options.worker_cpus);
  std::size_t cpu = 0;
  while (!CPU_ISSET(cpu, &options.cpus)) ++cpu;
  CPU_SET(cpu, &*options.worker_cpus);
  options.policy = SCHED_BATCH;
  ASSERT_TRUE(set_offload(options, domain));
  struct Look : callback_head {
    cpu_set_t cpus{};
    int policy = -1;
    std::atomic<bool> done{false};
  } look;
  std::vector<Where> notice(1024);
  for (Where& one : notice) call(one, Where::run, sizeof one, domain);
  call(
      look,
      [](callback_head* head) noexcept {
        auto* const self = static_cast<Look*>(head);
        ::sched_getaffinity(0, sizeof self->cpus, &self->cpus);
        self->policy = ::sched_getscheduler(0);
        self->done = true;
      },
      sizeof look, domain);
  wait_until(look.done);
  EXPECT_TRUE(CPU_EQUAL(&look.cpus, &*options.worker_cpus));
  EXPECT_EQ(look.policy, SCHED_BATCH);
  rcu_barrier(domain);
}

// ---- Stalls -----------------------------------------------------------------------------------

std::atomic<int> reports{0};
std::atomic<pid_t> reported_thread{0};
std::atomic<std::uint32_t> reported_nesting{0};
std::atomic<std::size_t> reported_frames{0};
std::vector<std::chrono::nanoseconds> reported_ages;
std::atomic<int> own_signals{0};

void collect(const stall_report& report) {
  reported_ages.push_back(report.age);
  if (!report.readers.empty()) {
    reported_thread = report.readers.front().thread;
    reported_nesting = report.readers.front().nesting;
    reported_frames = report.readers.front().stack.size();
  }
  ++reports;
}

class Stall : public testing::Test {
 protected:
  void SetUp() override {
    reports = 0;
    reported_ages.clear();
    own_signals = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { ++own_signals; };
    ASSERT_EQ(::sigaction(SIGURG, &action, nullptr), 0);
    options_.limit = 10ms;
    options_.expedited_limit = 5ms;
    options_.handler = collect;
    options_.signal = SIGURG;
    ASSERT_TRUE(set_stall_options(options_));
  }
  void TearDown() override { ASSERT_TRUE(set_stall_options({})); }
  stall_options options_;
};

TEST_F(Stall, IsReportedWithThreadNestingAndStackAgainAndAgainAndTheProgramGoesOn) {
  for (const bool expedited : {false, true}) {
    rcu_domain domain;
    reports = 0;
    reported_ages.clear();
    std::atomic<bool> inside{false};
    std::atomic<bool> leave{false};
    std::atomic<pid_t> thread{0};
    std::thread reader([&] {
      thread = ::gettid();
      const std::scoped_lock section(domain);
      const std::scoped_lock nested(domain);
      inside = true;
      wait_until(leave);
    });
    wait_until(inside);
    const gp_state state = get_state(domain);
    std::thread updater([&] {
      if (expedited) {
        cond_synchronize_expedited(state, domain);
      } else {
        cond_synchronize(state, domain);
      }
    });
    while (reports < 3) std::this_thread::yield();
    leave = true;
    updater.join();
    reader.join();
    EXPECT_EQ(reported_thread, thread);
    EXPECT_EQ(reported_nesting, 2u);
    EXPECT_GT(reported_frames, 0u);
    EXPECT_GE(reported_ages[1], reported_ages[0] * 2);
    EXPECT_GE(reported_ages[2], reported_ages[1] * 2);
    EXPECT_GE(stats(domain).stalls, 3u);
    EXPECT_TRUE(poll_state(state, domain));
  }
  EXPECT_EQ(own_signals, 0);
}

TEST_F(Stall, SignalsThatAreTheProgramsReachItsHandler) {
  ::raise(SIGURG);
  EXPECT_EQ(own_signals, 1);
  ::kill(::getpid(), SIGURG);
  EXPECT_EQ(own_signals, 2);
}

TEST_F(Stall, AReaderThatBlocksTheSignalIsReportedWithoutItsStack) {
  rcu_domain domain;
  std::atomic<bool> inside{false};
  std::atomic<bool> leave{false};
  std::thread reader([&] {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
    const std::scoped_lock section(domain);
    inside = true;
    wait_until(leave);
  });
  wait_until(inside);
  std::thread updater([&] { rcu_synchronize(domain); });
  while (reports < 1) std::this_thread::yield();
  EXPECT_EQ(reported_frames, 0u);
  leave = true;
  updater.join();
  reader.join();
}

TEST(StallOptions, AreChecked) {
  stall_options options;
  options.limit = {};
  EXPECT_FALSE(set_stall_options(options));
  options = {};
  options.expedited_limit = -1ns;
  EXPECT_FALSE(set_stall_options(options));
  options = {};
  options.signal = SIGKILL;
  EXPECT_FALSE(set_stall_options(options));
  options.signal = 1000;
  EXPECT_FALSE(set_stall_options(options));
}

}  // namespace
}  // namespace tandem::rcu
