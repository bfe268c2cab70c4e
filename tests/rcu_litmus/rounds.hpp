// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <sched.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <string>
#include <thread>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu {

/// A variable on a cache line of its own, accessed like the kernel's READ_ONCE and WRITE_ONCE.
struct alignas(kCacheLine) Variable {
  int read() const { return word.load(std::memory_order_relaxed); }
  void write(int value) { word.store(value, std::memory_order_relaxed); }
  std::atomic<int> word{0};
};

/// One run of a litmus test: its shared variables and what its threads have read.
struct Cell {
  Variable x, y;
  int reader[2] = {};   // the reading thread's registers
  int updater[2] = {};  // the updating thread's
};

/// How often each outcome of a two-register test has been seen.
struct Outcomes {
  std::uint64_t counts[2][2] = {};
  std::string text() const {
    std::ostringstream out;
    for (const int first : {0, 1}) {
      for (const int second : {0, 1}) {
        out << ' ' << first << second << ':' << counts[first][second];
      }
    }
    return out.str();
  }
};

/// Starts two threads together, round after round.
class Rendezvous {
 public:
  void meet() {
    const std::uint64_t mine = arrived_.fetch_add(1, std::memory_order_acq_rel) + 1;
    const std::uint64_t all = (mine + 1) / 2 * 2;
    for (int spins = 0; arrived_.load(std::memory_order_acquire) < all; ++spins) {
      if (spins < 2000) {
        cpu_pause();
      } else {
        std::this_thread::yield();
      }
    }
  }

 private:
  alignas(kCacheLine) std::atomic<std::uint64_t> arrived_{0};
};

/// Moves the calling thread to the `index`-th CPU that the process may run on: on one CPU the
/// threads of a litmus test would only take turns. Where there is no such CPU it stays where it is.
inline void run_on_cpu(int index) {
  cpu_set_t usable;
  if (::sched_getaffinity(0, sizeof usable, &usable) != 0) return;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &usable) || index-- != 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ::sched_setaffinity(0, sizeof one, &one);
    return;
  }
}

/// Stores to lines that no cache holds. What is stored after them waits behind them, for some
/// hundred nanoseconds on x86, while the loads that follow run.
class SlowStores {
 public:
  void prepare() {
    for (Variable& line : lines_) {
#if defined(__x86_64__)
      asm volatile("clflush %0" : "+m"(line.word));
#elif defined(__aarch64__)
      asm volatile("dc civac, %0" : : "r"(&line.word) : "memory");
#endif
    }
    full_fence();
  }
  void make() {
    for (Variable& line : lines_) line.write(1);
  }

 private:
  std::array<Variable, 48> lines_;
};

/// A small generator (xorshift); the seed is fixed per thread, the machine adds the noise.
class Delay {
 public:
  explicit Delay(std::uint32_t seed) : state_(seed) {}
  void up_to(std::uint32_t pauses) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 17;
    state_ ^= state_ << 5;
    for (std::uint32_t i = state_ % (pauses + 1); i != 0; --i) cpu_pause();
  }

 private:
  std::uint32_t state_;
};

#if defined(__SANITIZE_THREAD__)
// It finds a missing order without the bad luck of an outcome.
constexpr std::chrono::seconds kLitmusTime{1};
#else
constexpr std::chrono::seconds kLitmusTime{3};
#endif

/// How long each test runs: a million sections, which takes about a second, but no more than
/// kLitmusTime on a loaded machine. TANDEM_LITMUS_SECTIONS gives another number and no limit.
class Budget {
 public:
  explicit Budget(std::uint64_t sections_per_round) {
    const char* const wanted = std::getenv("TANDEM_LITMUS_SECTIONS");
    const std::uint64_t sections = wanted ? std::strtoull(wanted, nullptr, 10) : 1'000'000;
    rounds_ = sections / sections_per_round + 1;
    if (!wanted) end_ = std::chrono::steady_clock::now() + kLitmusTime;
  }
  bool next() { return rounds_-- != 0 && std::chrono::steady_clock::now() < end_; }

 private:
  std::uint64_t rounds_ = 0;
  std::chrono::steady_clock::time_point end_ = std::chrono::steady_clock::time_point::max();
};

/// Runs a litmus test of one reader and one updater and counts its outcomes.
///
/// In a round the reader enters a section for each of kCells cells, one after the other, while the
/// updater writes to all of them, waits for one grace period and accesses all of them again. So one
/// grace period meets sections in every state. Both threads first write to lines of the other,
/// which holds back the stores after them, on x86 by far more than a grace period without a fence
/// lasts.
template <class Reader, class Section, class Before, class After, class Outcome>
Outcomes run_litmus(Section section, Before before, After after, Outcome outcome) {
  constexpr std::size_t kCells = 32;
  constexpr std::size_t kNoise = 8;
  rcu_domain domain;
  const auto cells = std::make_unique<std::array<Cell, kCells>>();
  const auto noise = std::make_unique<std::array<Variable, kNoise>>();
  Rendezvous start;
  Rendezvous end;
  std::atomic<bool> done{false};
  Outcomes outcomes;
  std::thread reading([&] {
    run_on_cpu(0);
    Reader reader(domain);
    reader.rest();
    Delay delay(1);
    while (true) {
      start.meet();
      if (done.load(std::memory_order_relaxed)) return;
      reader.resume();
      delay.up_to(200);
      for (Cell& cell : *cells) {
        for (Variable& line : *noise) line.write(1);
        reader.enter();
        section(cell, delay);
        reader.leave();
      }
      reader.rest();
      end.meet();
    }
  });
  std::thread updating([&] {
    run_on_cpu(1);
    Delay delay(2);
    for (Budget budget(kCells); budget.next();) {
      for (Cell& cell : *cells) {
        cell.x.write(0);
        cell.y.write(0);
      }
      start.meet();
      delay.up_to(200);
      for (Variable& line : *noise) line.write(2);
      for (Cell& cell : *cells) before(cell);
      rcu_synchronize(domain);
      for (Cell& cell : *cells) after(cell);
      end.meet();
      for (const Cell& cell : *cells) {
        const auto [first, second] = outcome(cell);
        ++outcomes.counts[first][second];
      }
    }
    done.store(true, std::memory_order_relaxed);
    start.meet();
  });
  updating.join();
  reading.join();
  std::printf("[ outcomes ]%s\n", outcomes.text().c_str());
  return outcomes;
}

}  // namespace tandem::rcu
