// SPDX-License-Identifier: Apache-2.0
#include "rcu_extras.hpp"

#include <sched.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <thread>

#include "parcel.hpp"
#include "random.hpp"
#include "rcu_flavour.hpp"
#include "signals.hpp"
#include "tandem/base/check.hpp"
#include "tandem/rcu/offload.hpp"
#include "tandem/rcu/stall.hpp"

namespace tandem::rcutorture {
namespace {

using namespace std::chrono_literals;
using rcu::rcu_domain;

/// A reader that stalls on purpose, and whether it was reported. For the report's handler.
std::atomic<pid_t> stalled_thread{0};
std::atomic<bool> stall_reported{false};

void on_stall(const rcu::stall_report& report) {
  for (const rcu::stalled_reader& reader : report.readers) {
    if (reader.thread != stalled_thread.load()) continue;
    stall_reported.store(true);
    stall_reported.notify_all();
  }
}

cpu_set_t one_cpu(unsigned choice) {
  cpu_set_t usable;
  TANDEM_CHECK(::sched_getaffinity(0, sizeof usable, &usable) == 0);
  unsigned skip = choice % static_cast<unsigned>(CPU_COUNT(&usable));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &usable) || skip-- != 0) continue;
    CPU_SET(cpu, &one);
    break;
  }
  return one;
}

}  // namespace

RcuExtras::RcuExtras(rcu_domain& domain, const Options& options, Tally& tally, Team& team,
                     const std::atomic<Element*>& element)
    : domain_(domain),
      options_(options),
      tally_(tally),
      team_(team),
      element_(element),
      signals_(tally.line("signal handlers")) {
  rcu::stall_options stalls;
  if (options_.stalls) {
    stalls.limit = 50ms;
    stalls.expedited_limit = 20ms;
  }
  stalls.handler = on_stall;
  TANDEM_CHECK(rcu::set_stall_options(stalls).has_value());
}

RcuExtras::~RcuExtras() { set_signal_action(nullptr, nullptr); }

void RcuExtras::add_threads() {
  if (options_.signals) {
    // Handlers create nothing; the domains have to be there, in half the runs with their thread.
    rcu::rcu_synchronize(handlers_domain_);
    if (options_.seed % 2 == 0) (void)rcu::prepare_polling(domain_);
    set_signal_action(on_signal, this);
    team_.add("signals", [this] { send_signals(); });
  }
  if (options_.stalls) team_.add("stalls", [this] { stall(); });
  if (options_.offload) team_.add("offload toggling", [this] { toggle_offload(); });
  if (options_.barriers) team_.add("nested barriers", [this] { barrier_inside(); });
  if (options_.domains) team_.add("domains", [this] { make_domains(); });
}

// ---- Signals ----------------------------------------------------------------------------------

void RcuExtras::send_signals() {
  Random random(options_.seed, "signals", 0);
  while (!team_.should_stop()) {
    send_signal(random.below(1u << 16));
    if (random.one_in(4)) std::this_thread::sleep_for(std::chrono::microseconds(random.below(100)));
  }
}

/// Reads as any reader does, and asks about a grace period that an earlier handler has named.
void RcuExtras::on_signal(void* context) noexcept {
  thread_local rcu::gp_state state;
  thread_local bool over = true;
  auto& self = *static_cast<RcuExtras*>(context);
  {
    const std::scoped_lock section(self.domain_);
    const Sighting sighting(self.element_, self.signals_);
    thread_local Sightings seen;
    sighting.end(seen);
  }
  self.signals_.worked();
  const bool now = rcu::poll_state(state, self.domain_);
  if (over && !now) self.signals_.fail("a grace period that was over is not any more");
  over = now;
  if (!over) return;
  self.signals_.grace_periods.fetch_add(1, std::memory_order_relaxed);
  state = self.signals_.operations.load(std::memory_order_relaxed) % 2 == 0
              ? rcu::start_poll(self.domain_)
              : rcu::start_poll_expedited(self.domain_);
  over = false;
}

// ---- Stalls -----------------------------------------------------------------------------------

/// Stays in a section until it is reported.
void RcuExtras::stall() {
  Line& line = tally_.line("stalls");
  stalled_thread.store(::gettid());
  while (!team_.should_stop()) {
    stall_reported.store(false);
    {
      const std::scoped_lock section(domain_);
      const auto deadline = std::chrono::steady_clock::now() + 30s;
      while (!stall_reported.load() && std::chrono::steady_clock::now() < deadline) {
        std::this_thread::sleep_for(5ms);
      }
    }
    line.worked();
    if (!stall_reported.load()) line.fail("a reader that stalled was not reported");
    std::this_thread::sleep_for(250ms);
  }
}

// ---- Offloading -------------------------------------------------------------------------------

void RcuExtras::toggle_offload() {
  Random random(options_.seed, "offload", 0);
  Line& line = tally_.line("offload toggling");
  Ledger ledger(line);
  while (!team_.should_stop()) {
    rcu::offload_options wanted;
    wanted.cpus = one_cpu(random.below(7));  // as many groups as there can be
    wanted.offloaded = random.one_in(2);
    if (random.one_in(2)) wanted.worker_cpus = one_cpu(random.below(64));
    if (!rcu::set_offload(wanted, domain_)) line.fail("a group of CPUs was refused");
    line.worked();
    for (unsigned i = random.below(2000); i != 0; --i) post_rcu_parcel(domain_, ledger, random);
    (void)rcu::run_callbacks(domain_);
    if (random.one_in(8)) std::this_thread::sleep_for(1ms);
  }
  rcu::rcu_barrier(domain_);
  if (ledger.waiting() != 0) line.fail("a barrier returned before a callback had run");
}

// ---- Barriers in odd places -------------------------------------------------------------------

/// In a domain of its own: a section that waits for a deleter and a deleter that waits for sections
/// of other threads may wait for each other.
void RcuExtras::barrier_inside() {
  Random random(options_.seed, "nested barriers", 0);
  Line& line = tally_.line("nested barriers");
  rcu_domain inner;
  while (!team_.should_stop()) {
    Ledger ledger(line);
    for (unsigned i = random.below(30); i != 0; --i) retire_rcu_parcel(inner, ledger, random);
    if (random.one_in(2)) {
      const std::scoped_lock section(inner);
      rcu::rcu_barrier(inner);
      if (ledger.waiting() != 0) line.fail("a barrier in a section returned too early");
    } else {
      int object = 0;
      rcu::rcu_retire(
          &object,
          [&](int*) {
            Ledger within(line);
            Random mine(options_.seed, "deleter", random.below(1000));
            for (unsigned i = mine.below(30); i != 0; --i) post_rcu_parcel(inner, within, mine);
            rcu::rcu_barrier(inner);
            if (within.waiting() != 0) line.fail("a barrier in a deleter returned too early");
          },
          inner);
    }
    rcu::rcu_barrier(inner);
    if (ledger.waiting() != 0) line.fail("a barrier returned before a callback had run");
    line.worked();
  }
}

// ---- Domains ----------------------------------------------------------------------------------

void RcuExtras::make_domains() {
  Random random(options_.seed, "domains", 0);
  Line& line = tally_.line("domains");
  while (!team_.should_stop()) {
    Ledger ledger(line);
    {
      rcu_domain short_lived;
      std::thread other([&, number = random.below(1u << 20)] {
        Random mine(options_.seed, "domain's", number);
        for (unsigned i = mine.below(30); i != 0; --i) {
          const std::scoped_lock section(short_lived);
          post_rcu_parcel(short_lived, ledger, mine);
        }
      });
      for (unsigned i = random.below(4); i != 0; --i) rcu::rcu_synchronize(short_lived);
      int object = 0;
      rcu::rcu_retire(
          &object,
          [&](int* p) {  // its deleters may retire, once more
            rcu::rcu_retire(
                p,
                [&](int*) {
                  Random mine(options_.seed, "late", 0);
                  post_rcu_parcel(short_lived, ledger, mine);
                },
                short_lived);
          },
          short_lived);
      other.join();
    }
    if (ledger.waiting() != 0) line.fail("a domain ended before a callback had run");
    line.worked();
  }
}

}  // namespace tandem::rcutorture
