// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/tasks_rude.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <string>
#include <thread>
#include <utility>

#include "tandem/base/mapping.hpp"
#include "tandem/base/unique_fd.hpp"
#include "tandem/rcu/detail/tasks_test_bench.hpp"
#include "tandem/rcu/detail/thread_activity.hpp"

namespace tandem::rcu::detail {
namespace {

using Waiting = Updater<tasks_rude_domain>;

TEST(ThreadActivity, TellsABlockedThreadFromARunningOne) {
  std::atomic<std::int32_t> tid{0};
  std::atomic<bool> block{false};
  std::atomic<bool> end{false};
  std::thread thread([&] {
    tid = static_cast<std::int32_t>(::gettid());
    spin_until(block);
    end.wait(false);
  });
  wait_until([&] { return tid != 0; });
  EXPECT_EQ(thread_activity(tid), Activity::kRunning);
  const auto switches = voluntary_switches(tid);
  ASSERT_TRUE(switches);
  EXPECT_TRUE(page_faults(tid));
  const auto cpu_time = cpu_time_ns(tid);
  ASSERT_TRUE(cpu_time);
  wait_until([&] { return *cpu_time_ns(tid) > *cpu_time + 1'000'000; });
  block = true;
  wait_until([&] { return thread_activity(tid) == Activity::kInSystemCall; });
  EXPECT_GT(*voluntary_switches(tid), *switches);
  end = true;
  end.notify_all();
  thread.join();
  // The kernel lets join() return a moment before it takes the thread out of /proc.
  wait_until([&] { return thread_activity(tid) == Activity::kUnknown; });
  EXPECT_FALSE(voluntary_switches(tid));
  EXPECT_FALSE(page_faults(tid));
  EXPECT_FALSE(cpu_time_ns(tid));
}

// Where it is stopped the kernel still tells the system call that it was about to leave.
TEST(ThreadActivity, AStoppedThreadIsNotBlockedInASystemCall) {
  std::atomic<std::int32_t> tid{0};
  std::atomic<bool> end{false};
  std::thread thread([&] {
    tid = static_cast<std::int32_t>(::gettid());
    while (!end) (void)::syscall(SYS_getppid);
  });
  wait_until([&] { return tid != 0; });
  ::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
  void* const shared =
      ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  // 0: the thread runs; 1: it is stopped; 2: has been looked at; -1: cannot be stopped.
  auto& stage = *new (shared) std::atomic<int>(0);
  const pid_t tracer = ::fork();
  if (tracer == 0) {
    for (int round = 0; round < 100; ++round) {
      const bool attached = ::ptrace(PTRACE_ATTACH, tid.load(), nullptr, nullptr) == 0 &&
                            ::waitpid(tid, nullptr, __WALL) == tid;
      stage = attached ? 1 : -1;
      if (!attached) ::_exit(1);
      while (stage == 1) ::sched_yield();
      ::ptrace(PTRACE_DETACH, tid.load(), nullptr, nullptr);
      ::usleep(100);
    }
    stage = -1;
    ::_exit(0);
  }
  int looks = 0;
  for (;; ++looks) {
    wait_until([&] { return stage == 1 || stage == -1; });
    if (stage == -1) break;
    EXPECT_NE(thread_activity(tid), Activity::kInSystemCall);
    stage = 2;
  }
  end = true;
  thread.join();
  ASSERT_EQ(::waitpid(tracer, nullptr, 0), tracer);
  ::munmap(shared, kPageSize);
  if (looks == 0) GTEST_SKIP() << "no thread may be traced here";
  EXPECT_EQ(looks, 100);
}

TEST(TasksRude, ACancelledThreadStillEndsItsGracePeriod) {
  tasks_rude_domain domain;
  std::atomic<bool> end{false};
  std::atomic<bool> inside{false};
  std::thread thread([&] {
    const tasks_rude_domain::task me;
    inside = true;
    spin_until(end);
  });
  spin_until(inside);
  struct Updater {
    tasks_rude_domain* domain;
    std::atomic<bool> begun{false};
    std::atomic<bool> returned{false};
  } updater{&domain};
  pthread_t waiting{};
  ASSERT_EQ(::pthread_create(
                &waiting, nullptr,
                [](void* argument) -> void* {
                  auto& self = *static_cast<Updater*>(argument);
                  self.begun = true;
                  self.domain->synchronize();
                  self.returned = true;
                  return nullptr;
                },
                &updater),
            0);
  spin_until(updater.begun);
  ::usleep(10'000);
  ASSERT_EQ(::pthread_cancel(waiting), 0);
  ::usleep(10'000);
  end = true;
  thread.join();
  ASSERT_EQ(::pthread_join(waiting, nullptr), 0);
  EXPECT_TRUE(updater.returned);
}

TEST(ThreadActivity, CountsPageFaults) {
  const auto tid = static_cast<std::int32_t>(::gettid());
  auto fresh = Mapping::anonymous(64 * kPageSize);
  ASSERT_TRUE(fresh);
  ::madvise(fresh->data(), fresh->size(), MADV_NOHUGEPAGE);
  const auto before = page_faults(tid);
  ASSERT_TRUE(before);
  for (std::size_t at = 0; at < fresh->size(); at += kPageSize) fresh->data()[at] = std::byte{1};
  EXPECT_GE(*page_faults(tid), *before + 64);
}

TEST(RcuTasksRude, ABlockedTaskIsQuiescentWithoutItsHelp) {
  std::atomic<bool> inside{false};
  std::atomic<bool> end{false};
  std::thread thread([&] {
    const tasks_rude_domain::task task;
    inside = true;
    end.wait(false);
  });
  wait_until([&] { return inside.load(); });
  for (const auto evidence :
       {rude_evidence::voluntary_switch, rude_evidence::blocked_in_system_call}) {
    tasks_rude_domain domain(evidence);
    domain.synchronize();
    std::atomic<bool> ran{false};
    domain.call([&] { ran = true; });
    domain.barrier();
    EXPECT_TRUE(ran);
  }
  end = true;
  end.notify_all();
  thread.join();
}

TEST(RcuTasksRude, ATaskThatBlocksNowAndThenIsQuiescent) {
  tasks_rude_domain domain;
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> rounds{0};
  std::thread thread([&] {
    const tasks_rude_domain::task task;
    while (!stop) {
      for (int i = 0; i < 20'000; ++i) cpu_pause();  // about a millisecond awake
      std::this_thread::sleep_for(1us);
      ++rounds;
    }
  });
  wait_until([&] { return rounds > 0; });
  for (int i = 0; i < 10; ++i) domain.synchronize();
  stop = true;
  thread.join();
}

std::uint64_t preemptions(std::int32_t tid) {
  std::ifstream status("/proc/self/task/" + std::to_string(tid) + "/status");
  std::string line;
  const std::string key = "nonvoluntary_ctxt_switches:";
  while (std::getline(status, line)) {
    if (line.starts_with(key)) return std::stoull(line.substr(key.size()));
  }
  return 0;
}

TEST(RcuTasksRude, PreemptionIsNoQuiescence) {
  cpu_set_t mine;
  ASSERT_EQ(::sched_getaffinity(0, sizeof mine, &mine), 0);
  int cpu = 0;
  while (!CPU_ISSET(cpu, &mine)) ++cpu;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  tasks_rude_domain domain;
  std::atomic<bool> stop{false};
  std::atomic<std::int32_t> tid{0};
  std::atomic<bool> quiescent{false};
  std::thread rival([&] {
    ::sched_setaffinity(0, sizeof one, &one);
    spin_until(stop);
  });
  std::thread task_thread([&] {
    ::sched_setaffinity(0, sizeof one, &one);
    const tasks_rude_domain::task task;
    tid = static_cast<std::int32_t>(::gettid());
    spin_until(quiescent);
    tasks_rude_quiescent();
    spin_until(stop);
  });
  wait_until([&] { return tid != 0; });
  Waiting updater(domain);
  const std::uint64_t before = preemptions(tid);
  wait_until([&] { return preemptions(tid) >= before + 5; });
  EXPECT_FALSE(updater.done());
  quiescent = true;
  updater.join();
  stop = true;
  rival.join();
  task_thread.join();
}

/// A page whose first access sleeps until provide().
class SleepyPage {
 public:
  SleepyPage() {
    auto mapping = Mapping::anonymous(kPageSize);
    if (!mapping) return;
    page_ = std::move(*mapping);
    fd_.reset(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC)));
    if (!fd_) return;
    uffdio_api api{};
    api.api = UFFD_API;
    uffdio_register range{};
    range.range.start = reinterpret_cast<std::uintptr_t>(page_.data());
    range.range.len = page_.size();
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    ready_ = ::ioctl(fd_.get(), UFFDIO_API, &api) == 0 &&
             ::ioctl(fd_.get(), UFFDIO_REGISTER, &range) == 0;
  }
  bool ready() const { return ready_; }
  std::byte touch() const { return *static_cast<volatile std::byte*>(page_.data()); }
  void provide() {
    uffdio_zeropage zero{};
    zero.range.start = reinterpret_cast<std::uintptr_t>(page_.data());
    zero.range.len = page_.size();
    ::ioctl(fd_.get(), UFFDIO_ZEROPAGE, &zero);
  }

 private:
  Mapping page_;
  UniqueFd fd_;
  bool ready_ = false;
};

/// A task that sleeps in a page fault amid its region.
class FaultingTask {
 public:
  FaultingTask() {
    wait_until([&] { return tid_ != 0; });
  }
  ~FaultingTask() { thread_.join(); }
  void fall_asleep() {
    touch_ = true;
    wait_until([&] { return thread_activity(tid_) == Activity::kElsewhere; });
  }
  void wake_up() {
    page_.provide();
    wait_until([&] { return touched_.load(); });
  }
  void end_region() { quiescent_ = true; }

 private:
  void run() {
    const tasks_rude_domain::task task;
    tid_ = static_cast<std::int32_t>(::gettid());
    spin_until(touch_);
    (void)page_.touch();
    touched_ = true;
    spin_until(quiescent_);
    tasks_rude_quiescent();
  }

  SleepyPage page_;
  std::atomic<std::int32_t> tid_{0};
  std::atomic<bool> touch_{false}, touched_{false}, quiescent_{false};
  std::thread thread_{[this] { run(); }};
};

class RcuTasksRudeFault : public testing::Test {
 protected:
  void SetUp() override {
    if (!SleepyPage().ready()) GTEST_SKIP() << "no userfaultfd here";
    if (kInstrumented) GTEST_SKIP() << "ThreadSanitizer: an atomic may put its reader to sleep";
  }
  tasks_rude_domain domain_;
};

TEST_F(RcuTasksRudeFault, ASleepInItEndsNoRegion) {
  FaultingTask task;
  Waiting updater(domain_);
  EXPECT_TRUE(updater.still_waits());
  task.fall_asleep();
  EXPECT_TRUE(updater.still_waits());  // it sleeps
  task.wake_up();
  EXPECT_TRUE(updater.still_waits());  // it has slept
  task.end_region();
  updater.join();
}

// A look may meet the fault at each of its steps.
TEST_F(RcuTasksRudeFault, StressASleepInItEndsNoRegion) {
  for (int round = 0; round < 100 && !HasFailure(); ++round) {
    FaultingTask task;
    Waiting updater(domain_);
    task.fall_asleep();
    ::usleep(200);
    EXPECT_FALSE(updater.done()) << "it sleeps";
    task.wake_up();
    ::usleep(200);
    EXPECT_FALSE(updater.done()) << "it has slept";
    task.end_region();
    updater.join();
  }
}

TEST(RcuTasksRude, BlockedOnlyDoesNotTakeAStopSignalForAVoluntarySwitch) {
  if (kInstrumented) GTEST_SKIP() << "ThreadSanitizer: no threads in the child";
  // The child stops itself in a region; we let it go on.
  const pid_t child = ::fork();
  if (child == 0) {
    tasks_rude_domain domain(rude_evidence::blocked_in_system_call);
    std::atomic<bool> inside{false};
    std::atomic<bool> leave{false};
    std::thread thread([&] {
      const tasks_rude_domain::task task;
      inside = true;
      spin_until(leave);
    });
    wait_until([&] { return inside.load(); });
    Waiting updater(domain);
    bool waited = updater.still_waits();
    ::raise(SIGSTOP);
    waited = waited && updater.still_waits();
    leave = true;
    updater.join();
    thread.join();
    ::_exit(waited ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, WUNTRACED), child);
  ASSERT_TRUE(WIFSTOPPED(status));
  ::kill(child, SIGCONT);
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace tandem::rcu::detail
