// SPDX-License-Identifier: Apache-2.0
/// `tandem bench rcu`: tandem::rcu next to its peers. Readers and updaters are pinned to two CPUs.
#include <fmt/format.h>

#include <initializer_list>

#include "bench/harness.hpp"
#include "bench/rcu_crossover.hpp"
#include "bench/rcu_loaded.hpp"
#include "bench/rcu_peers.hpp"

namespace tandem::bench {
namespace {

using Target = Case::Target;

struct Goal {
  RcuImplementation peer;
  const char* tag;
  Target target;
  double limit;
  long rounds;  // of the peer, for about as long as ours takes
};

void add_sections(std::vector<Case>& list, long scale) {
  const RcuImplementation ours = tandem_rcu();
  // The targets against bp, mb and shared_mutex keep watch; the others are what we set out for.
  const Goal goals[] = {{urcu_memb(), "urcu-memb", Target::kAtMostRatio, 1.1, 2'000'000},
                        {urcu_memb_linked(), "urcu-memb-linked", Target::kTimesFaster, 5, 500'000},
                        {urcu_bp(), "urcu-bp", Target::kAtMostRatio, 1.1, 2'000'000},
                        {urcu_mb(), "urcu-mb", Target::kTimesFaster, 5, 200'000},
                        {ck_epochs(), "ck", Target::kTimesFaster, 4, 500'000},
                        {ck_epochs_bare(), "bare-ck", Target::kTimesFaster, 4, 500'000},
                        {libcds_gpb(), "libcds", Target::kTimesFaster, 4, 500'000},
                        {shared_mutex(), "shared_mutex", Target::kTimesFaster, 3, 200'000}};
  for (const int threads : {1, 2}) {
    for (const Goal& goal : goals) {
      list.push_back({.name = fmt::format("rcu/section/threads:{}/{}", threads, goal.tag),
                      .unit = "ns",
                      .peer_name = goal.peer.name,
                      .target = goal.target,
                      .limit = goal.limit,
                      .ours = [=] { return ours.section_ns(threads, 2'000'000 * scale); },
                      .peer = [=] { return goal.peer.section_ns(threads, goal.rounds * scale); }});
    }
    const RcuImplementation qsbr = urcu_qsbr();
    list.push_back(
        {.name = fmt::format("rcu/quiescent/threads:{}/urcu-qsbr", threads),
         .unit = "ns",
         .peer_name = qsbr.name,
         .target = Target::kAtMostRatio,
         .limit = 1.1,
         .ours = [=] { return tandem_quiescent().section_ns(threads, 4'000'000 * scale); },
         .peer = [=] { return qsbr.section_ns(threads, 4'000'000 * scale); }});
  }
}

void add_grace_periods(std::vector<Case>& list, long scale) {
  const RcuImplementation ours = tandem_rcu();
  const RcuImplementation memb = urcu_memb();
  const RcuImplementation ck = ck_epochs();
  for (const ReaderState state : {ReaderState::kIdle, ReaderState::kRunning}) {
    const bool idle = state == ReaderState::kIdle;
    const char* const reader = idle ? "idle" : "running";
    const long rounds = (idle ? 10'000 : 1'000) * scale;
    list.push_back({.name = fmt::format("rcu/synchronize/reader:{}/urcu-memb", reader),
                    .unit = "ns",
                    .peer_name = memb.name,
                    .target = Target::kAtMostRatio,
                    .limit = 0.65,
                    .ours = [=] { return ours.synchronize_ns(state, rounds); },
                    .peer = [=] { return memb.synchronize_ns(state, rounds); }});
    list.push_back({.name = fmt::format("rcu/synchronize/fenced-reader:{}/ck", reader),
                    .unit = "ns",
                    .peer_name = ck.name,
                    .target = Target::kAtMostRatio,
                    .limit = 1.5,
                    .ours = [=] { return tandem_fenced().synchronize_ns(state, 50'000 * scale); },
                    .peer = [=] { return ck.synchronize_ns(state, 50'000 * scale); }});
  }
  list.push_back({.name = "rcu/synchronize/callers:8/urcu-memb",
                  .unit = "op/s",
                  .peer_name = memb.name,
                  .higher_is_better = true,
                  .target = Target::kAtLeastRatio,
                  .limit = 2,
                  .ours = [=] { return ours.synchronize_rate(8, scale > 1 ? 500 : 100); },
                  .peer = [=] { return memb.synchronize_rate(8, scale > 1 ? 500 : 100); }});
  list.push_back({.name = "rcu/poll",
                  .unit = "ns",
                  .peer_name = "",
                  .target = Target::kAtMost,
                  .limit = 5,
                  .ours = [=] { return poll_ns(2'000'000 * scale); },
                  .peer = {}});
  list.push_back({.name = "rcu/srcu",
                  .unit = "ns",
                  .peer_name = "",
                  .target = Target::kAtMost,
                  .limit = 3,
                  .ours = [=] { return srcu_section_ns(2'000'000 * scale); },
                  .peer = {}});
}

void add_callbacks(std::vector<Case>& list, bool quick) {
  const RcuImplementation ours = tandem_rcu();
  const RcuImplementation memb = urcu_memb();
  const RcuImplementation ck = ck_epochs();
  const int bursts = quick ? 40 : 200;
  // Few enough that nobody is slowed down.
  constexpr int kBurst = 1000;
  for (const auto& [peer, tag, limit] :
       {std::tuple(memb, "urcu-memb", 15.0), std::tuple(ck, "ck", 3.0),
        std::tuple(ck_epochs_bare(), "bare-ck", 3.0)}) {
    list.push_back({.name = fmt::format("rcu/call/{}", tag),
                    .unit = "ns",
                    .peer_name = peer.name,
                    .target = Target::kTimesFaster,
                    .limit = limit,
                    .ours = [=] { return ours.enqueue_ns(kBurst, bursts); },
                    .peer = [=, p = peer] { return p.enqueue_ns(kBurst, bursts); }});
  }
  for (const bool loaded : {false, true}) {
    list.push_back({.name = fmt::format("rcu/callback/{}", loaded ? "loaded" : "idle"),
                    .unit = "us",
                    .peer_name = memb.name,
                    .target = Target::kAtMost,
                    .limit = loaded ? 1000.0 : 100.0,
                    .ours = [=] { return ours.callback_us(loaded); },
                    .peer = [=] { return memb.callback_us(loaded); },
                    .samples = quick ? 41 : 201});
  }
  list.push_back({.name = "rcu/callback/idle-cpu",
                  .unit = "us/s",
                  .peer_name = "",
                  .target = Target::kAtMost,
                  .limit = 1,
                  .ours = idle_worker_us,
                  .peer = {},
                  .samples = 1});
  const int length_ms = quick ? 200 : 1000;
  list.push_back({.name = "rcu/flood/rate",
                  .unit = "op/s",
                  .peer_name = memb.name,
                  .higher_is_better = true,
                  .target = Target::kAtLeastRatio,
                  .limit = 1.2,
                  .ours =
                      [=] {
                        double grown = 0;
                        return ours.flood_rate(length_ms, grown);
                      },
                  .peer =
                      [=] {
                        double grown = 0;
                        return memb.flood_rate(length_ms, grown);
                      },
                  .samples = 5});
  const auto growth = [=](const RcuImplementation& who) {
    double grown = 0;
    who.flood_rate(quick ? 500 : 2000, grown);
    return grown;
  };
  list.push_back({.name = "rcu/flood/growth",
                  .unit = "MiB",
                  .peer_name = memb.name,
                  .target = Target::kAtMost,
                  .limit = 32,
                  .ours = [=] { return growth(ours); },
                  .peer = [=] { return growth(memb); },
                  .samples = 3});
}

void add_tables(std::vector<Case>& list, bool quick) {
  const RcuImplementation ours = tandem_rcu();
  const RcuImplementation memb = urcu_memb();
  const int length_ms = quick ? 80 : 500;
  for (const bool reader : {true, false}) {
    const auto rate = [=](const RcuImplementation& who) {
      const HashRates rates = who.hash_rates(length_ms);
      return reader ? rates.finds_per_second : rates.updates_per_second;
    };
    list.push_back({.name = fmt::format("rcu/hash/{}", reader ? "find" : "replace"),
                    .unit = "op/s",
                    .peer_name = memb.name + ", cds_lfht",
                    .higher_is_better = true,
                    .target = Target::kAtLeastRatio,
                    .limit = 1.2,
                    .ours = [=] { return rate(ours); },
                    .peer = [=] { return rate(memb); }});
  }
}

void add_loaded(std::vector<Case>& list, bool quick) {
  const int rounds = quick ? 100 : 1000;
  list.push_back({.name = "rcu/expedited/all-cpus-busy",
                  .unit = "us p99",
                  .peer_name = "the same without SCHED_FIFO",
                  .target = Target::kTimesFaster,
                  .limit = 10,
                  .ours = [=] { return expedited_p99_us(1, rounds); },
                  .peer = [=] { return expedited_p99_us(0, rounds); },
                  .samples = 3});
  const int turns = quick ? 10'000 : 100'000;
  list.push_back({.name = "rcu/offload/gap",
                  .unit = "ns p99",
                  .peer_name = "callbacks in the thread's own slack",
                  .target = Target::kTimesFaster,
                  .limit = 10,
                  .ours = [=] { return callback_gap_p99_ns(true, turns); },
                  .peer = [=] { return callback_gap_p99_ns(false, turns); },
                  .samples = 5});
}

std::vector<Case> cases(const Options& options) {
  // Before any thread is pinned: what runs callbacks inherits where it may run.
  poll_ns(1);
  std::vector<Case> list;
  const long scale = options.quick ? 1 : 10;
  add_sections(list, scale);
  add_grace_periods(list, scale);
  add_callbacks(list, options.quick);
  add_tables(list, options.quick);
  add_loaded(list, options.quick);
  if (!options.svg_path.empty() || !options.quick) add_crossover(list, options.quick);
  return list;
}

}  // namespace

Area rcu_area() {
  return {"rcu", "read-copy-update: sections, grace periods, callbacks, tables", cases,
          plot_crossover};
}

}  // namespace tandem::bench
