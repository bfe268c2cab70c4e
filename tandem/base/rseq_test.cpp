// SPDX-License-Identifier: Apache-2.0
#include "tandem/base/rseq.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace tandem {
namespace {

struct alignas(64) Slot {
  std::atomic<std::uint64_t> count{0};
};

/// Runs the current test in a new process with one more variable in its environment. Returns how
/// that ended, as waitpid() tells.
int status_of(const char* variable, const char* value) {
  const auto* const test = ::testing::UnitTest::GetInstance()->current_test_info();
  const std::string filter =
      std::string("--gtest_filter=") + test->test_suite_name() + '.' + test->name();
  const pid_t child = ::fork();
  if (child == 0) {
    ::setenv(variable, value, 1);
    ::execl("/proc/self/exe", "rseq", filter.c_str(), nullptr);
    ::_exit(2);
  }
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

class RseqTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    cpus_ = present_cpus();
    slots_ = std::make_unique<Slot[]>(cpus_);
  }
  void SetUp() override {
    if (!rseq_available()) GTEST_SKIP() << "no registered restartable sequences in this process";
  }
  static bool add(std::uint64_t delta) { return rseq_add<6>(&slots_[0].count, delta, cpus_); }
  static std::uint64_t sum() {
    std::uint64_t total = 0;
    for (std::uint32_t cpu = 0; cpu < cpus_; ++cpu) total += slots_[cpu].count;
    return total;
  }
  inline static std::uint32_t cpus_ = 0;
  inline static std::unique_ptr<Slot[]> slots_;
};

TEST(PresentCpus, ContainTheCpuThisThreadRunsOn) {
  EXPECT_GE(rseq_cpu(), 0);
  EXPECT_LT(rseq_cpu(), static_cast<int>(present_cpus()));
}

/// The first call of a process reads a file.
TEST(PresentCpus, MayBeAskedForByAThreadThatIsBeingCancelled) {
  if (::getenv("TANDEM_TEST_CANCELLED") != nullptr) {
    ::pthread_cancel(::pthread_self());
    EXPECT_GE(present_cpus(), 1u);
    ::pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
    return;
  }
  EXPECT_EQ(status_of("TANDEM_TEST_CANCELLED", "1"), 0);
}

TEST_F(RseqTest, AddsToTheSlotOfItsCpu) {
  cpu_set_t before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  for (std::uint32_t cpu = 0; cpu < cpus_; ++cpu) {
    if (!CPU_ISSET(cpu, &before)) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(rseq_cpu(), static_cast<int>(cpu));
    const std::uint64_t seen = slots_[cpu].count;
    const std::uint64_t total = sum();
    EXPECT_TRUE(add(7));
    EXPECT_EQ(slots_[cpu].count, seen + 7);
    EXPECT_TRUE(add(~std::uint64_t{0}));
    EXPECT_EQ(sum(), total + 6);
  }
  EXPECT_EQ(::sched_setaffinity(0, sizeof before, &before), 0);
}

TEST_F(RseqTest, ACpuBeyondTheArrayIsToldAndNothingIsWritten) {
  const std::uint64_t total = sum();
  EXPECT_FALSE((rseq_add<6>(&slots_[0].count, 1, 0)));
  EXPECT_EQ(sum(), total);
}

#ifdef TANDEM_HAS_RSEQ
TEST_F(RseqTest, AThreadThatIsNotRegisteredIsToldAndNothingIsWritten) {
  const std::uint64_t total = sum();
  std::thread([] {
    char* const area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
    // What was registered can be more than what the library tells: it leaves padding out.
    const unsigned size = std::max(__rseq_size, 32u);
    ASSERT_EQ(::syscall(SYS_rseq, area, size, RSEQ_FLAG_UNREGISTER, RSEQ_SIG), 0);
    EXPECT_FALSE(add(1));
    EXPECT_GE(rseq_cpu(), 0);
    // As the C library expects when the thread ends.
    ASSERT_EQ(::syscall(SYS_rseq, area, size, 0, RSEQ_SIG), 0);
  }).join();
  EXPECT_EQ(sum(), total);
}
#endif

/// Counts the interruptions, in the slots that it interrupts.
std::atomic<std::uint64_t> interruptions{0};

// More threads than CPUs, interrupted by a timer whose handler adds to the same slots: a sequence
// that went on after an interruption would lose what was added meanwhile.
TEST_F(RseqTest, NoAdditionIsLostToPreemptionMigrationOrSignals) {
  struct sigaction action {};
  struct sigaction before {};
  static void (*const add_one)() = [] { RseqTest::add(1); };
  action.sa_handler = [](int) {
    add_one();
    interruptions.fetch_add(1, std::memory_order_relaxed);
  };
  action.sa_flags = SA_RESTART;
  ASSERT_EQ(::sigaction(SIGPROF, &action, &before), 0);
  const itimerval often{{0, 1000}, {0, 1000}};
  const itimerval never{};
  const std::uint64_t start = sum();
  interruptions = 0;
  ASSERT_EQ(::setitimer(ITIMER_PROF, &often, nullptr), 0);
  constexpr std::uint64_t kEach = 20'000'000;
  // The first gives its CPU to the others, not, once they are done, to another process: that may
  // keep it for milliseconds each time.
  std::atomic<int> others{5};
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([i, &others] {
      for (std::uint64_t n = 0; n < kEach; ++n) {
        add(1);
        if (i == 0 && n % 64 == 0 && others.load(std::memory_order_relaxed) > 0) ::sched_yield();
      }
      if (i != 0) others.fetch_sub(1, std::memory_order_relaxed);
    });
  }
  for (auto& thread : threads) thread.join();
  ASSERT_EQ(::setitimer(ITIMER_PROF, &never, nullptr), 0);
  ASSERT_EQ(::sigaction(SIGPROF, &before, nullptr), 0);
  EXPECT_GT(interruptions, 0u);
  EXPECT_EQ(sum(), start + 6 * kEach + interruptions);
}

TEST_F(RseqTest, GoesOnInAForkedChild) {
  const pid_t child = ::fork();
  if (child == 0) {
    const std::uint64_t total = sum();
    ::_exit(rseq_available() && add(3) && sum() == total + 3 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

/// Runs itself once more, in a process that does without.
TEST(Rseq, IsNotUsedWhereItIsDisabled) {
  const char* const disabled = ::getenv("TANDEM_DISABLE");
  if (disabled != nullptr && std::string_view(disabled) == "rseq") {
    EXPECT_FALSE(rseq_available());
    EXPECT_GE(rseq_cpu(), 0);
    return;
  }
  EXPECT_EQ(status_of("TANDEM_DISABLE", "rseq"), 0);
}

}  // namespace
}  // namespace tandem
