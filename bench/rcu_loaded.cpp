// SPDX-License-Identifier: Apache-2.0
#include "bench/rcu_loaded.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "bench/harness.hpp"
#include "bench/rcu_measure.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/rcu/call.hpp"
#include "tandem/rcu/expedite.hpp"
#include "tandem/rcu/grace_period.hpp"
#include "tandem/rcu/offload.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/srcu.hpp"

namespace tandem::bench {
namespace {

void spin_ns(std::int64_t length) {
  for (const auto end = now_ns() + length; now_ns() < end;) cpu_pause();
}

double p99(std::vector<double>& samples) {
  const auto at = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() * 99 / 100);
  std::nth_element(samples.begin(), at, samples.end());
  return *at;
}

/// Nanoseconds of CPU time of this process's threads of that name.
std::int64_t cpu_ns_of_threads(const std::string& wanted) {
  std::int64_t sum = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream name_file(task.path() / "comm");
    std::string name;
    std::getline(name_file, name);
    if (name != wanted) continue;
    std::ifstream stat(task.path() / "schedstat");
    std::int64_t ran = 0;
    stat >> ran;
    sum += ran;
  }
  return sum;
}

}  // namespace

double expedited_p99_us(int priority, int rounds) {
  if (!rcu::set_expedited_priority(priority)) std::abort();
  std::vector<double> took;
  {
    // A domain of its own: threads that drive grace periods keep the priority they started with.
    rcu::rcu_domain domain;
    std::atomic<bool> stop{false};
    {
      std::vector<std::jthread> others;
      for (int cpu = 0; cpu < 2; ++cpu) {
        others.emplace_back([&stop, cpu] {
          pin_thread(cpu);
          while (!stop.load(std::memory_order_relaxed)) cpu_pause();
        });
      }
      others.emplace_back([&] {
        pin_thread(0);
        while (!stop.load(std::memory_order_relaxed)) {
          domain.lock();
          spin_ns(20'000);
          domain.unlock();
        }
      });
      std::jthread caller([&] {
        pin_thread(1);
        // The caller's own turn on a busy CPU is not what is measured.
        const sched_param urgent{2};
        (void)::pthread_setschedparam(::pthread_self(), SCHED_FIFO, &urgent);
        for (int i = 0; i < rounds; ++i) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
          const auto begin = now_ns();
          rcu::rcu_synchronize_expedited(domain);
          took.push_back(static_cast<double>(now_ns() - begin) / 1000);
        }
      });
      caller.join();
      stop.store(true);
    }
  }
  if (!rcu::set_expedited_priority(1)) std::abort();
  return p99(took);
}

double callback_gap_p99_ns(bool offloaded, int turns) {
  std::vector<double> gaps;
  gaps.reserve(static_cast<std::size_t>(turns));
  rcu::rcu_domain domain;
  (void)rcu::prepare_polling(domain);  // drives the grace periods of a thread with own callbacks
  rcu::offload_options options;
  CPU_SET(static_cast<std::size_t>(cpu_at(0)), &options.cpus);
  options.offloaded = offloaded;
  options.worker_cpus.emplace();
  CPU_ZERO(&*options.worker_cpus);
  CPU_SET(static_cast<std::size_t>(cpu_at(1)), &*options.worker_cpus);
  if (!rcu::set_offload(options, domain)) std::abort();
  std::jthread critical([&] {
    pin_thread(0);
    std::vector<rcu::callback_head> heads(static_cast<std::size_t>(turns));
    auto last = now_ns();
    for (rcu::callback_head& head : heads) {
      rcu::call(
          head, [](rcu::callback_head*) noexcept { spin_ns(1000); }, sizeof head, domain);
      // Half as many as a CPU could run.
      spin_ns(2000);
      const auto now = now_ns();
      gaps.push_back(static_cast<double>(now - last));
      last = now;
    }
    rcu::rcu_barrier(domain);
  });
  critical.join();
  return p99(gaps);
}

double idle_worker_us() {
  (void)rcu::prepare_polling();
  rcu::rcu_barrier();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const auto before = cpu_ns_of_threads("tandem-rcu");
  std::this_thread::sleep_for(std::chrono::seconds(1));
  return static_cast<double>(cpu_ns_of_threads("tandem-rcu") - before) / 1000;
}

double poll_ns(long rounds) {
  (void)rcu::prepare_polling();
  const rcu::gp_state state = rcu::get_state();
  rcu::rcu_synchronize();
  const auto begin = now_ns();
  for (long i = 0; i < rounds; ++i) {
    if (!rcu::poll_state(state)) std::abort();
  }
  return static_cast<double>(now_ns() - begin) / static_cast<double>(rounds);
}

double srcu_section_ns(long rounds) {
  double result = 0;
  std::jthread reader([&] {
    pin_thread(0);
    rcu::srcu_domain domain;
    const auto begin = cpu_ns();
    for (long i = 0; i < rounds; ++i) {
      const rcu::srcu_section section(domain);
      asm volatile("" ::: "memory");
    }
    result = static_cast<double>(cpu_ns() - begin) / static_cast<double>(rounds);
  });
  reader.join();
  return result;
}

}  // namespace tandem::bench
