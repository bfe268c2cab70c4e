// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/tasks.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tandem/rcu/detail/tasks_test_bench.hpp"

namespace tandem::rcu::detail {
namespace {

using Waiting = Updater<tasks_domain>;

/// A task that sleeps until told, then passes a voluntary point when told.
class Sleeper {
 public:
  Sleeper()
      : thread_([this] {
          const tasks_domain::task task;
          asleep_ = true;
          quiescent_.wait(false);
          tasks_quiescent();
          end_.wait(false);
        }) {
    wait_until([this] { return asleep_.load(); });
  }
  ~Sleeper() { end(); }
  void end() {
    quiescent();
    end_ = true;
    end_.notify_all();
    if (thread_.joinable()) thread_.join();
  }
  void quiescent() {
    quiescent_ = true;
    quiescent_.notify_all();
  }

 private:
  std::atomic<bool> asleep_{false};
  std::atomic<bool> quiescent_{false};
  std::atomic<bool> end_{false};
  std::thread thread_;
};

TEST(RcuTasks, BlockingIsNoVoluntaryPoint) {
  tasks_domain domain;
  Sleeper sleeper;
  Waiting updater(domain);
  EXPECT_TRUE(updater.still_waits());
  sleeper.quiescent();
  updater.join();
  // One point serves grace periods that began before it only.
  Waiting next(domain);
  EXPECT_TRUE(next.still_waits());
  sleeper.end();
}

TEST(RcuTasks, AnIdleTaskHoldsNothingUp) {
  tasks_domain domain;
  std::atomic<bool> idle{false};
  std::atomic<bool> wake{false};
  std::atomic<bool> online{false};
  std::atomic<bool> leave{false};
  std::thread thread([&] {
    const tasks_domain::task task;
    {
      const tasks_idle outer;
      const tasks_idle inner;
      tasks_quiescent();  // no effect
      idle = true;
      wake.wait(false);
    }
    online = true;
    spin_until(leave);
  });
  wait_until([&] { return idle.load(); });
  for (int i = 0; i < 10; ++i) domain.synchronize();
  wake = true;
  wake.notify_all();
  wait_until([&] { return online.load(); });
  Waiting updater(domain);
  EXPECT_TRUE(updater.still_waits());
  leave = true;
  updater.join();
  thread.join();
}

TEST(RcuTasks, EnteringIdleWakesTheGracePeriodThatSleeps) {
  tasks_domain domain;
  std::atomic<bool> inside{false};
  std::atomic<bool> leave{false};
  std::atomic<bool> end{false};
  std::thread thread([&] {
    const tasks_domain::task task;
    inside = true;
    spin_until(leave);
    const tasks_idle idle;
    end.wait(false);
  });
  wait_until([&] { return inside.load(); });
  Waiting updater(domain);
  EXPECT_TRUE(updater.still_waits());
  leave = true;
  updater.join();
  end = true;
  end.notify_all();
  thread.join();
}

TEST(RcuTasks, CallIsNoVoluntaryPoint) {
  tasks_domain domain;
  std::atomic<bool> ran{false};
  std::atomic<bool> leave{false};
  std::thread thread([&] {
    const tasks_domain::task task;
    domain.call([&] { ran = true; });
    spin_until(leave);
  });
  wait_until([&] { return domain.stats().callbacks_queued == 1; });
  std::this_thread::sleep_for(30ms);
  EXPECT_FALSE(ran);
  leave = true;
  thread.join();
  domain.barrier();
  EXPECT_TRUE(ran);
}

TEST(RcuTasks, AThreadThatIsNoTaskHoldsNothingUp) {
  tasks_domain domain;
  tasks_quiescent();
  { const tasks_idle idle; }
  domain.synchronize();
  {
    const tasks_domain::task outer;
    const tasks_domain::task inner;
  }
  std::thread([&] { domain.synchronize(); }).join();
}

}  // namespace
}  // namespace tandem::rcu::detail
