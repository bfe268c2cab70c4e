// SPDX-License-Identifier: Apache-2.0
#include "tandem/base/background_thread.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <future>
#include <string>
#include <thread>

namespace tandem {
namespace {

/// What a background thread finds itself to be.
struct Found {
  sigset_t blocked;
  int policy = -1;
  int priority = -1;
  cpu_set_t cpus;
  std::string name;
  std::promise<void> seen;  // ends the thread
};

Found started(int fifo_priority) {
  Found found;
  pthread_t thread;
  const int error = start_background_thread(
      thread, "tandem-test", fifo_priority,
      [](void* argument) -> void* {
        auto& mine = *static_cast<Found*>(argument);
        ::pthread_sigmask(SIG_SETMASK, nullptr, &mine.blocked);
        sched_param parameter{};
        ::pthread_getschedparam(::pthread_self(), &mine.policy, &parameter);
        mine.priority = parameter.sched_priority;
        ::sched_getaffinity(0, sizeof mine.cpus, &mine.cpus);
        mine.seen.get_future().wait();
        return nullptr;
      },
      &found);
  EXPECT_EQ(error, 0);
  char name[16] = "";
  EXPECT_EQ(::pthread_getname_np(thread, name, sizeof name), 0);
  found.name = name;
  found.seen.set_value();
  EXPECT_EQ(::pthread_join(thread, nullptr), 0);
  return found;
}

bool may_be_real_time() {
  bool may = false;
  std::thread([&may] {
    const sched_param parameter{2};
    may = ::pthread_setschedparam(::pthread_self(), SCHED_FIFO, &parameter) == 0;
  }).join();
  return may;
}

TEST(BackgroundThread, HasItsNameAndBlocksEverySignal) {
  const Found found = started(0);
  EXPECT_EQ(found.name, "tandem-test");
  for (const int signal : {SIGUSR1, SIGTERM, SIGINT, SIGHUP, SIGALRM, SIGCHLD, SIGPROF}) {
    EXPECT_EQ(::sigismember(&found.blocked, signal), 1) << signal;
  }
  sigset_t mine;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &mine);
  EXPECT_EQ(::sigismember(&mine, SIGUSR1), 0) << "the starter's mask is back";
}

TEST(BackgroundThread, MayRunWhereMainDoesAlthoughItsStarterIsPinned) {
  cpu_set_t mains;
  ASSERT_EQ(::sched_getaffinity(::getpid(), sizeof mains, &mains), 0);
  if (CPU_COUNT(&mains) < 2) GTEST_SKIP() << "one CPU";
  std::thread([&mains] {
    cpu_set_t one;
    CPU_ZERO(&one);
    for (std::size_t cpu = 0; CPU_COUNT(&one) == 0; ++cpu) {
      if (CPU_ISSET(cpu, &mains)) CPU_SET(cpu, &one);
    }
    ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
    const Found found = started(0);
    EXPECT_TRUE(CPU_EQUAL(&found.cpus, &mains));
  }).join();
}

TEST(BackgroundThread, IsNotRealTimeBecauseItsStarterIs) {
  if (!may_be_real_time()) GTEST_SKIP() << "real-time priorities are denied";
  std::thread([] {
    const sched_param parameter{2};
    ASSERT_EQ(::pthread_setschedparam(::pthread_self(), SCHED_FIFO, &parameter), 0);
    EXPECT_EQ(started(0).policy, SCHED_OTHER);
  }).join();
}

TEST(BackgroundThread, KeepsTheModestyOfItsStarter) {
  std::thread([] {
    const sched_param parameter{0};
    ASSERT_EQ(::pthread_setschedparam(::pthread_self(), SCHED_IDLE, &parameter), 0);
    EXPECT_EQ(started(0).policy, SCHED_IDLE);
  }).join();
}

TEST(BackgroundThread, IsRealTimeFromItsFirstInstructionWhereAsked) {
  if (!may_be_real_time()) GTEST_SKIP() << "real-time priorities are denied";
  const Found found = started(3);
  EXPECT_EQ(found.policy, SCHED_FIFO);
  EXPECT_EQ(found.priority, 3);
}

TEST(BackgroundThread, RunsAllTheSameWhereRealTimeIsDenied) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const rlimit none{0, 0};
    if (::setrlimit(RLIMIT_RTPRIO, &none) != 0) ::_exit(2);
    if (::getuid() == 0 && ::setresuid(65534, 65534, 65534) != 0) ::_exit(3);
    ::_exit(started(3).policy == SCHED_OTHER ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace tandem
