// SPDX-License-Identifier: Apache-2.0
/// The measurements that all implementations of RCU go through.
///
/// A `Thread` is a thread's part in one of them, registered while it lives:
///
///     void lock(), unlock()                  a section
///     void synchronize()
///     struct Head; void call(Head&, Fn*)     Fn: void(Head*), noexcept
///     void drain()                           what was handed in has run
///     static void prepare()                  starts what runs callbacks
#pragma once

#include <malloc.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <new>
#include <thread>
#include <vector>

#include "bench/harness.hpp"
#include "bench/rcu_peers.hpp"
#include "tandem/base/cpu.hpp"

namespace tandem::bench {

/// Resident memory of this process, in MiB.
inline double resident_mib() {
  std::ifstream file("/proc/self/statm");
  double total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

template <class Thread>
double section_ns(int threads, long rounds) {
  std::barrier start(threads);
  std::vector<double> each(static_cast<std::size_t>(threads));
  {
    std::vector<std::jthread> all;
    for (int i = 0; i < threads; ++i) {
      all.emplace_back([&, i] {
        pin_thread(i);
        Thread self;
        const auto run = [&self](long count) {
          for (long n = 0; n < count; ++n) {
            self.lock();
            asm volatile("" ::: "memory");
            self.unlock();
          }
        };
        run(10'000);
        start.arrive_and_wait();
        const auto begin = cpu_ns();
        run(rounds);
        each[static_cast<std::size_t>(i)] =
            static_cast<double>(cpu_ns() - begin) / static_cast<double>(rounds);
      });
    }
  }
  double sum = 0;
  for (const double one : each) sum += one;
  return sum / threads;
}

template <class Thread>
double synchronize_ns(ReaderState state, long rounds) {
  std::atomic<bool> ready{false};
  std::atomic<bool> stop{false};
  std::jthread reader([&] {
    pin_thread(1);
    Thread self;
    self.lock();
    self.unlock();
    ready.store(true);
    ready.notify_one();
    if (state == ReaderState::kIdle) {
      stop.wait(false);
    } else {
      while (!stop.load(std::memory_order_relaxed)) {
        self.lock();
        asm volatile("" ::: "memory");
        self.unlock();
      }
    }
  });
  double result = 0;
  std::jthread waiter([&] {
    pin_thread(0);
    Thread self;
    self.lock();
    self.unlock();
    ready.wait(false);
    for (int i = 0; i < 100; ++i) self.synchronize();
    const auto begin = now_ns();
    for (long i = 0; i < rounds; ++i) self.synchronize();
    result = static_cast<double>(now_ns() - begin) / static_cast<double>(rounds);
  });
  waiter.join();
  stop.store(true);
  stop.notify_one();
  return result;
}

template <class Thread>
double synchronize_rate(int callers, int milliseconds) {
  std::barrier start(callers + 1);
  std::atomic<bool> stop{false};
  std::atomic<long> sum{0};
  std::vector<std::jthread> all;
  for (int i = 0; i < callers; ++i) {
    all.emplace_back([&] {
      Thread self;
      self.lock();
      self.unlock();
      start.arrive_and_wait();
      long count = 0;
      for (; !stop.load(std::memory_order_relaxed); ++count) self.synchronize();
      sum.fetch_add(count);
    });
  }
  start.arrive_and_wait();
  const auto begin = now_ns();
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  stop.store(true);
  all.clear();
  return static_cast<double>(sum.load()) * 1e9 / static_cast<double>(now_ns() - begin);
}

template <class Thread>
double enqueue_ns(int burst, int bursts) {
  using Head = typename Thread::Head;
  Thread::prepare();
  std::vector<double> each;
  std::jthread caller([&] {
    pin_thread(0);
    std::vector<Head> heads(static_cast<std::size_t>(burst) * static_cast<std::size_t>(bursts));
    Thread self;
    auto next = now_ns();
    for (int i = 0; i < bursts; ++i) {
      Head* const first = heads.data() + static_cast<std::ptrdiff_t>(i) * burst;
      Head* const last = first + burst;
      for (next += 500'000; now_ns() < next;) cpu_pause();
      for (Head* head = first; head != last; ++head) new (head) Head;  // objects are in the cache
      asm volatile("" ::: "memory");
      const auto begin = now_ns();
      for (Head* head = first; head != last; ++head) self.call(*head, [](Head*) noexcept {});
      each.push_back(static_cast<double>(now_ns() - begin) / burst);
    }
    self.drain();
  });
  caller.join();
  std::nth_element(each.begin(), each.begin() + bursts / 2, each.end());
  return each[static_cast<std::size_t>(bursts) / 2];
}

template <class Thread>
struct FloodObject {
  typename Thread::Head head;
  char rest[64 - sizeof(typename Thread::Head)];

  static void hand_in(Thread& self) {
    void* const memory = std::malloc(sizeof(FloodObject));
    if (memory == nullptr) throw std::bad_alloc();
    auto* const object = new (memory) FloodObject;
    self.call(object->head, [](typename Thread::Head* head) noexcept { std::free(head); });
  }
};

template <class Thread>
double callback_us(bool loaded) {
  Thread::prepare();
  std::atomic<bool> stop{false};
  std::jthread load;
  if (loaded) {
    load = std::jthread([&stop] {
      pin_thread(1);
      Thread self;
      auto next = now_ns();
      while (!stop.load(std::memory_order_relaxed)) {
        for (int i = 0; i < 200; ++i) FloodObject<Thread>::hand_in(self);
        for (next += 100'000; now_ns() < next;) {
          std::this_thread::sleep_for(std::chrono::microseconds(10));
        }
      }
      self.drain();
    });
  }
  double result = 0;
  std::jthread caller([&] {
    struct Asked {
      typename Thread::Head head;
      std::atomic<bool> done{false};
    };
    pin_thread(0);
    Thread self;
    Asked asked;
    std::this_thread::sleep_for(std::chrono::milliseconds(loaded ? 5 : 2));
    const auto begin = now_ns();
    self.call(asked.head, [](typename Thread::Head* head) noexcept {
      reinterpret_cast<Asked*>(head)->done.store(true, std::memory_order_release);
    });
    while (!asked.done.load(std::memory_order_acquire)) cpu_pause();
    result = static_cast<double>(now_ns() - begin) / 1000;
    self.drain();
  });
  caller.join();
  stop.store(true);
  return result;
}

template <class Thread>
double flood_rate(int milliseconds, double& grown_mib) {
  Thread::prepare();
  double rate = 0;
  std::jthread caller([&] {
    pin_thread(0);
    Thread self;
    ::malloc_trim(0);
    const double before = resident_mib();
    double most = before;
    double count = 0;
    const auto begin = now_ns();
    const auto end = begin + std::int64_t{milliseconds} * 1'000'000;
    while (now_ns() < end) {
      for (int i = 0; i < 8192; ++i) FloodObject<Thread>::hand_in(self);
      count += 8192;
      most = std::max(most, resident_mib());
    }
    self.drain();
    rate = count * 1e9 / static_cast<double>(now_ns() - begin);
    grown_mib = most - before;
  });
  caller.join();
  return rate;
}

inline constexpr std::uint64_t kHashKeys = 16384;
inline constexpr std::size_t kHashBuckets = 4096;

/// The same cheap random keys for everybody.
inline std::uint64_t next_key(std::uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state % kHashKeys;
}
inline std::uint64_t hash_of(std::uint64_t key) {
  key *= 0x9E3779B97F4A7C15;
  return key ^ (key >> 32);
}

/// Table: `bool find(key)` in a section, `void replace(key)` which defers the old element's free.
template <class Thread, class Table>
HashRates hash_rates(int milliseconds) {
  Thread::prepare();
  Table table;
  std::atomic<bool> stop{false};
  double finds = 0, updates = 0;
  {
    std::jthread reader([&] {
      pin_thread(0);
      Thread self;
      std::uint64_t state = 88172645463325252, found = 0;
      double count = 0;
      while (!stop.load(std::memory_order_relaxed)) {
        for (int i = 0; i < 64; ++i) {
          const std::uint64_t key = next_key(state);
          self.lock();
          found += table.find(key) ? 1 : 0;
          self.unlock();
        }
        count += 64;
      }
      if (found == 0) std::abort();
      finds = count;
    });
    std::jthread updater([&] {
      pin_thread(1);
      Thread self;
      std::uint64_t state = 6364136223846793005;
      while (!stop.load(std::memory_order_relaxed)) {
        for (int i = 0; i < 16; ++i) table.replace(self, next_key(state));
        updates += 16;
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    stop.store(true);
  }
  Thread().drain();
  return {finds * 1000 / milliseconds, updates * 1000 / milliseconds};
}

}  // namespace tandem::bench
