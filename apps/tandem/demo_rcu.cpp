// SPDX-License-Identifier: Apache-2.0
/// tandem demo rcu: what the kernel's RCU learned in recent years, one checked line each.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "apps/tandem/demo.hpp"
#include "tandem/rcu/call.hpp"
#include "tandem/rcu/checked.hpp"
#include "tandem/rcu/expedite.hpp"
#include "tandem/rcu/grace_period.hpp"
#include "tandem/rcu/offload.hpp"
#include "tandem/rcu/probe_table.hpp"
#include "tandem/rcu/quiescent.hpp"
#include "tandem/rcu/srcu.hpp"
#include "tandem/rcu/stall.hpp"
#include "tandem/rcu/stats.hpp"
#include "tandem/rcu/tasks.hpp"
#include "tandem/rcu/tasks_rude.hpp"
#include "tandem/rcu/tasks_trace.hpp"

namespace tandem::cli {
namespace {

using namespace std::chrono_literals;
using rcu::rcu_domain;
using Clock = std::chrono::steady_clock;

struct Line {
  bool ok = false;
  std::string text;
};

double microseconds(Clock::duration time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

void wait_for(const std::atomic<bool>& flag) {
  while (!flag) std::this_thread::yield();
}

// ---- Flavors consolidated ---------------------------------------------------------------------

Line one_grace_period_for_all() {
  rcu_domain domain;
  std::atomic<int> inside{0};
  std::atomic<int> left{0};
  const auto stay = [&] {
    ++inside;
    std::this_thread::sleep_for(5ms);
    ++left;
  };
  std::vector<std::thread> readers;
  readers.emplace_back([&] {
    const std::scoped_lock section(domain);
    stay();
  });
  readers.emplace_back([&] {
    rcu::fenced_reader reader(domain);
    const std::scoped_lock section(reader);
    stay();
  });
  readers.emplace_back([&] {
    rcu::quiescent_reader reader(domain);
    stay();
    reader.quiescent();
  });
  while (inside != 3) std::this_thread::yield();
  const auto begin = Clock::now();
  rcu::rcu_synchronize(domain);
  const int waited_for = left;
  const double time = microseconds(Clock::now() - begin);
  for (auto& reader : readers) reader.join();
  return {
      waited_for == 3,
      fmt::format("one synchronize waited {:.1f} ms for a plain, a fenced and a quiescent-state "
                  "reader",
                  time / 1000)};
}

// ---- Checked traversal ------------------------------------------------------------------------

std::atomic<int> unprotected{0};

Line checked_dereference() {
  static int value = 42;
  rcu::rcu_ptr<int> pointer;
  pointer.assign(&value);
  unprotected = 0;
  rcu::set_check_handler([](const rcu::check_report&) noexcept { ++unprotected; });
  bool right = *rcu::dereference(pointer) == 42;  // outside a section and without a lock
  const int outside = unprotected;
  {
    const std::scoped_lock section(rcu::rcu_default_domain());
    right = right && *rcu::dereference(pointer) == 42;
  }
  right = right && *rcu::dereference(pointer, true) == 42;  // the caller says a lock is held
  rcu::set_check_handler(nullptr);
  const int expected = rcu::kChecking ? 1 : 0;
  return {right && outside == expected && unprotected == expected,
          rcu::kChecking ? "an access outside a section was reported, two protected ones were not"
                         : "this build leaves nothing but the load (TANDEM_RCU_CHECK reports)"};
}

// ---- Freeing without a head -------------------------------------------------------------------

std::atomic<long> freed{0};

template <std::size_t Bytes>
struct Bare {
  ~Bare() { ++freed; }
  std::array<char, Bytes> bytes;
};
struct WithHead : rcu::callback_head {
  ~WithHead() { ++freed; }
};

Line freed_without_a_head() {
  constexpr long kCount = 100000;
  rcu_domain domain;
  freed = 0;
  for (long i = 0; i < kCount; ++i) rcu::free(new Bare<16>, domain);
  for (long i = 0; i < kCount; ++i) rcu::free(new WithHead, domain);
  rcu::rcu_barrier(domain);
  return {freed == 2 * kCount,
          fmt::format("{} objects of 16 bytes without a head, {} with one", kCount, kCount)};
}

// ---- Tasks ------------------------------------------------------------------------------------

struct Probed {
  std::atomic<long> calls{0};
  static void call(void* context, std::uint64_t, std::uint64_t) {
    static_cast<Probed*>(context)->calls.fetch_add(1, std::memory_order_relaxed);
  }
};

/// Patches a live dispatch table under a thread that runs through it. Returns: how often it fired.
template <class Domain, class Body>
long patch(int patches, Body body) {
  Domain domain;
  rcu::probe_table<Domain> table(domain, 1);
  Probed probed;
  const rcu::probe_handler handler{Probed::call, &probed};
  std::atomic<bool> stop{false};
  std::atomic<bool> runs{false};
  std::thread thread([&] { body(table, runs, stop); });
  wait_for(runs);
  for (int i = 0; i < patches || probed.calls == 0; ++i) {
    if (!table.attach(0, handler)) return 0;
    if (i % 50 == 0) std::this_thread::sleep_for(1ms);
    if (!table.detach(0, handler)) return 0;
  }
  stop = true;
  thread.join();
  domain.synchronize();
  return probed.calls;
}

Line tables_patched_live() {
  constexpr int kPatches = 500;
  const long tasks = patch<rcu::tasks_domain>(kPatches, [](auto& table, auto& runs, auto& stop) {
    const rcu::tasks_domain::task me;
    for (runs = true; !stop; rcu::tasks_quiescent()) table.fire(0, 0, 0);
  });
  const long rude =
      patch<rcu::tasks_rude_domain>(kPatches, [](auto& table, auto& runs, auto& stop) {
        const rcu::tasks_rude_domain::task me;
        for (runs = true; !stop; std::this_thread::sleep_for(20us)) table.fire(0, 0, 0);
      });
  const long trace =
      patch<rcu::tasks_trace_domain>(kPatches, [](auto& table, auto& runs, auto& stop) {
        for (runs = true; !stop;) table.fire(0, 0, 0);
      });
  return {tasks > 0 && rude > 0 && trace > 0,
          fmt::format("a probe table patched {} times under a thread in it, by each of the three",
                      2 * kPatches)};
}

// ---- Polling ----------------------------------------------------------------------------------

std::atomic<int> handled{0};
std::atomic<int> passed{0};
rcu::gp_state asked;

void poll_in_handler(int) {
  if (handled.load() > 0 && rcu::poll_state(asked)) ++passed;
  asked = rcu::start_poll();
  ++handled;
}

Line polled_in_a_handler() {
  rcu::prepare_polling();
  { const std::scoped_lock section(rcu::rcu_default_domain()); }
  handled = passed = 0;
  struct sigaction action {};
  action.sa_handler = poll_in_handler;
  struct sigaction before {};
  ::sigaction(SIGUSR1, &action, &before);
  for (int i = 0; i < 1000 && passed < 10; ++i) {
    ::raise(SIGUSR1);
    std::this_thread::sleep_for(100us);
  }
  ::sigaction(SIGUSR1, &before, nullptr);
  return {passed >= 10,
          fmt::format("{} grace periods started and polled in a signal handler, without a wait",
                      passed.load())};
}

// ---- Offloading -------------------------------------------------------------------------------

struct Where : rcu::callback_head {
  std::thread::id thread;
  std::atomic<bool> ran{false};
};

/// How many of a batch of callbacks ran on the thread that scheduled them.
std::size_t run_here(rcu_domain& domain, bool offloaded) {
  rcu::offload_options options;
  ::sched_getaffinity(0, sizeof options.cpus, &options.cpus);
  options.offloaded = offloaded;
  if (!rcu::set_offload(options, domain)) return ~std::size_t{0};
  std::vector<Where> all(4096);
  std::size_t here = 0;
  for (int round = 0; round < 2; ++round) {  // in the first one the thread notices
    for (Where& one : all) {
      one.ran = false;
      const auto note = [](rcu::callback_head* head) noexcept {
        auto* const self = static_cast<Where*>(head);
        self->thread = std::this_thread::get_id();
        self->ran = true;
      };
      rcu::call(one, note, sizeof one, domain);
    }
    while (!std::all_of(all.begin(), all.end(), [](const Where& one) { return one.ran.load(); })) {
      rcu::rcu_synchronize(domain);
      if (!offloaded) rcu::run_callbacks(domain);
    }
    here = static_cast<std::size_t>(std::count_if(all.begin(), all.end(), [](const Where& one) {
      return one.thread == std::this_thread::get_id();
    }));
  }
  return here;
}

Line offloaded_and_back() {
  rcu_domain domain;
  const std::size_t offloaded = run_here(domain, true);
  const std::size_t inline_here = run_here(domain, false);
  const std::size_t again = run_here(domain, true);
  return {offloaded == 0 && inline_here > 2048 && again == 0,
          fmt::format("of 4096 callbacks {} ran on their own thread, then {}, then {}", offloaded,
                      inline_here, again)};
}

// ---- Sleepable readers ------------------------------------------------------------------------

Line readers_that_sleep() {
  rcu::srcu_domain domain;
  std::atomic<bool> inside{false};
  std::atomic<bool> left{false};
  std::thread reader([&] {
    const rcu::srcu_section section(domain);
    inside = true;
    std::this_thread::sleep_for(5ms);
    left = true;
  });
  wait_for(inside);
  rcu::rcu_synchronize();  // other domains do not wait for it
  const bool early = left;
  domain.synchronize();
  const bool waited = left;
  reader.join();
  return {
      !early && waited,
      fmt::format("a reader slept 5 ms in its section; a domain takes {} bytes on these {} CPUs",
                  rcu::srcu_domain::size_bytes(), ::sysconf(_SC_NPROCESSORS_CONF))};
}

// ---- Expedited, and stalls --------------------------------------------------------------------

std::atomic<int> stall_reports{0};
std::atomic<pid_t> stalled_thread{0};

void note_stall(const rcu::stall_report& report) {
  if (!report.readers.empty()) stalled_thread = report.readers.front().thread;
  ++stall_reports;
}

Line expedited_and_stalled() {
  rcu_domain domain;
  std::vector<double> times;
  {
    std::atomic<bool> running{false};
    const std::jthread busy([&](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        const std::scoped_lock section(domain);
        running = true;
      }
    });
    wait_for(running);
    for (int i = 0; i < 1000; ++i) {
      const auto begin = Clock::now();
      rcu::rcu_synchronize_expedited(domain);
      times.push_back(microseconds(Clock::now() - begin));
    }
  }
  std::nth_element(times.begin(), times.begin() + 500, times.end());
  rcu::stall_options options;
  options.handler = note_stall;
  if (!rcu::set_stall_options(options)) return {};
  stall_reports = 0;
  std::atomic<bool> inside{false};
  std::atomic<pid_t> thread{0};
  std::thread reader([&] {
    thread = ::gettid();
    const std::scoped_lock section(domain);
    inside = true;
    while (stall_reports == 0) std::this_thread::sleep_for(1ms);
  });
  wait_for(inside);
  rcu::rcu_synchronize_expedited(domain);
  reader.join();
  const bool named = stalled_thread == thread;
  (void)rcu::set_stall_options({});
  return {named,
          fmt::format("{:.1f} us beside a busy reader; one that stayed was named after {} ms",
                      times[500], options.expedited_limit / 1ms)};
}

}  // namespace

int demo_rcu() {
  struct Change {
    std::string_view name;
    Line (*show)();
  };
  constexpr std::array<Change, 8> kChanges{{
      {"flavors consolidated", one_grace_period_for_all},
      {"checked traversal", checked_dereference},
      {"one-argument free", freed_without_a_head},
      {"Tasks, Rude, Trace", tables_patched_live},
      {"polled grace periods", polled_in_a_handler},
      {"callback offloading", offloaded_and_back},
      {"SRCU memory diet", readers_that_sleep},
      {"expedited, stalls", expedited_and_stalled},
  }};
  fmt::print("{}\n", bold("RCU: eight changes of the kernel's, in this process", STDOUT_FILENO));
  bool all = true;
  for (const Change& change : kChanges) {
    const Line line = change.show();
    all = all && line.ok;
    fmt::print("  {} {:<21} {}\n", line.ok ? "ok    " : "FAILED", change.name, line.text);
    std::fflush(stdout);
  }
  const rcu::domain_stats stats = rcu::stats(rcu::rcu_default_domain());
  fmt::print("  Readers execute {} fence here.\n", stats.light_readers ? "no" : "a");
  return all ? kOk : kFailure;
}

}  // namespace tandem::cli
