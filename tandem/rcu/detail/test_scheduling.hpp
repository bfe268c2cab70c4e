// SPDX-License-Identifier: Apache-2.0
/// What a wait does to the CPU that it runs on. For tests; not installed.
#pragma once

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

namespace tandem::rcu::detail {

/// How often a thread went to sleep, and lost its CPU without having asked to sleep.
struct Switches {
  long sleeps = -1;
  long losses = -1;
};

/// Of another thread of this process; negative where there is no /proc.
inline Switches switches_of(long thread) {
  std::ifstream status("/proc/self/task/" + std::to_string(thread) + "/status");
  Switches switches;
  for (std::string key; status >> key;) {
    if (key == "voluntary_ctxt_switches:") status >> switches.sleeps;
    if (key == "nonvoluntary_ctxt_switches:") status >> switches.losses;
  }
  return switches;
}

/// What the scheduler may take from a thread that does nothing to provoke it for some 10 µs.
inline constexpr long kFewLosses = 4;

/// Runs `wait`, which must come to sleep, on a CPU that it shares with a thread that always wants
/// to run. `release` is called once it sleeps, and ends it.
///
/// Returns: how often it handed that CPU over before it slept; negative where there is no /proc.
inline long cpu_losses_before_sleep(const std::function<void()>& wait,
                                    const std::function<void()>& release) {
  if (switches_of(::syscall(SYS_gettid)).losses < 0) return -1;
  std::atomic<bool> stop{false};
  std::atomic<bool> waits{false};
  std::atomic<bool> returned{false};
  std::atomic<long> waiting{0};
  Switches before;
  std::thread waiter([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<unsigned>(::sched_getcpu()), &one);
    ::pthread_setaffinity_np(::pthread_self(), sizeof one, &one);
    std::atomic<bool> runs{false};
    std::thread rival([&] {  // on the same CPU
      for (runs = true; !stop;) {
      }
    });
    while (!runs) std::this_thread::yield();
    rusage usage;
    ::getrusage(RUSAGE_THREAD, &usage);
    before = {usage.ru_nvcsw, usage.ru_nivcsw};
    waiting = ::syscall(SYS_gettid);
    waits = true;
    wait();
    returned = true;
    stop = true;
    rival.join();
  });
  while (!waits) std::this_thread::yield();
  Switches then = before;
  while (!returned && then.sleeps <= before.sleeps) then = switches_of(waiting);
  release();
  waiter.join();
  return then.losses - before.losses;
}

}  // namespace tandem::rcu::detail
