// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/detail/crew.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

namespace tandem::kxo::detail {
namespace {

constexpr unsigned kHelpers = 3;

/// What helpers do, and what can be seen of it.
struct Task {
  std::array<std::atomic<int>, kHelpers + 1> times{};
  std::array<std::atomic<pid_t>, kHelpers + 1> threads{};
  std::atomic<int> inside{0};
  std::atomic<bool> stay{false};

  static void run(void* self, unsigned helper) {
    auto& task = *static_cast<Task*>(self);
    task.inside.fetch_add(1);
    task.threads.at(helper).store(::gettid());
    do {
      std::this_thread::yield();
    } while (task.stay.load());
    for (int i = 0; i < 3; ++i) std::this_thread::yield();
    task.times.at(helper).fetch_add(1);
    task.inside.fetch_sub(1);
  }
};

template <class Condition>
void await(Condition condition) {
  while (!condition()) std::this_thread::yield();
}

TEST(CrewTest, EachHelperThatComesDoesATaskOnceAndInTheSameThread) {
  Task task;
  Crew crew(kHelpers, "test", Task::run, &task);
  std::array<pid_t, kHelpers + 1> threads{};
  for (int round = 1; round <= 20; ++round) {
    crew.open();
    for (unsigned i = 1; i <= kHelpers; ++i) await([&] { return task.times.at(i) == round; });
    crew.close();
    crew.wait();
    for (unsigned i = 1; i <= kHelpers; ++i) {
      ASSERT_EQ(task.times.at(i), round);
      if (round == 1) threads.at(i) = task.threads.at(i);
      ASSERT_EQ(task.threads.at(i), threads.at(i));
    }
  }
  EXPECT_NE(threads[1], threads[2]);
  EXPECT_NE(threads[1], ::gettid());
}

TEST(CrewTest, StressNobodyIsInsideAfterWaiting) {
  Task task;
  Crew crew(kHelpers, "test", Task::run, &task);
  for (int round = 0; round < 100; ++round) {
    crew.open();
    if (round % 3 != 0) await([&] { return task.inside != 0 || task.times[1] != 0; });
    crew.close();
    crew.wait();
    ASSERT_EQ(task.inside, 0);
    const int times = task.times[1] + task.times[2] + task.times[3];
    ASSERT_LE(times, static_cast<int>(kHelpers) * (round + 1));
    std::this_thread::yield();
    ASSERT_EQ(task.times[1] + task.times[2] + task.times[3], times) << "one came in afterwards";
  }
}

// The caller falls asleep: they stay for as long as that takes.
TEST(CrewTest, WhoStaysLongIsWaitedFor) {
  Task task;
  task.stay = true;
  Crew crew(kHelpers, "test", Task::run, &task);
  crew.open();
  await([&] { return task.inside == static_cast<int>(kHelpers); });
  crew.close();
  std::jthread release([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    task.stay = false;
  });
  crew.wait();
  EXPECT_EQ(task.inside, 0);
}

TEST(CrewTest, EndsAtOnceWhateverItDid) {
  Task task;
  { Crew crew(kHelpers, "test", Task::run, &task); }  // nothing
  for (int i = 0; i < 20; ++i) {
    Crew crew(kHelpers, "test", Task::run, &task);
    crew.open();
    if (i % 2 == 0) crew.close();
  }
  Crew none(0, "test", Task::run, &task);
  none.open();
  none.close();
  none.wait();
  EXPECT_EQ(task.inside, 0);
}

TEST(CrewTest, AForkedChildHasOneOfItsOwn) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer knows no threads in a forked child";
#endif
  Task task;
  task.stay = true;
  auto crew = std::make_unique<Crew>(kHelpers, "test", Task::run, &task);
  crew->open();
  await([&] { return task.inside == static_cast<int>(kHelpers); });
  const pid_t child = ::fork();
  if (child == 0) {
    task.stay = false;
    crew->close();
    crew->wait();
    task.inside = 0;
    task.times[1] = 0;
    crew->open();
    await([&] { return task.times[1] == 1; });
    crew->close();
    crew->wait();
    crew.reset();
    ::_exit(0);
  }
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  task.stay = false;
}

}  // namespace
}  // namespace tandem::kxo::detail
