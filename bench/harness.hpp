// SPDX-License-Identifier: Apache-2.0
/// Interleaved measurement of ours and a peer, for `tandem bench`.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace tandem::bench {

/// One case: two ways to do the same, sampled in turn in one run.
struct Case {
  std::string name;       ///< "ring/nop-round-trip/spinning"
  std::string unit;       ///< of a sample: "ns", "op/s", "MB/s", "%"
  std::string peer_name;  ///< with its version; empty: the target is absolute
  bool higher_is_better = false;
  /// ours/peer when higher is better, peer/ours is "times faster" when lower is better; see
  /// `limit`.
  enum class Target : std::uint8_t {
    kAtMostRatio,   ///< ours / peer ≤ limit
    kAtLeastRatio,  ///< ours / peer ≥ limit
    kTimesFaster,   ///< better by this factor: peer / ours ≥ limit (lower is better)
    kAtMost,        ///< ours ≤ limit, whatever the peer's
    kAtLeast,       ///< ours ≥ limit, whatever the peer's
    kNone,          ///< data
  } target = Target::kAtMostRatio;
  double limit = 1;
  std::function<double()> ours;
  std::function<double()> peer = {};
  int samples = 0;  ///< 0: the harness's choice
};

struct Options {
  bool quick = false;
  std::string json_path;
  std::string svg_path;
  std::string only;  ///< run only cases whose name contains this
};

struct Summary {
  double median = 0, p99 = 0;
};

/// A group of cases that share a set-up; built only when its area runs.
struct Area {
  std::string name, what;
  std::function<std::vector<Case>(const Options&)> cases;
  /// As SVG.
  std::function<std::string(const nlohmann::json& report, const std::string& machine)> plot = {};
};

/// Runs the area: prints a table, writes JSON and a plot when asked.
/// Returns: 0, or 1 when a case missed its target in three attempts and docs/performance.md does
/// not
///          name it under "Misses".
int run_area(const Area& area, const Options& options);

/// The number of the `index`th usable CPU (modulo how many there are).
int cpu_at(int index);
/// Pins the calling thread to cpu_at(index).
void pin_thread(int index);
/// Lets the calling thread run on all CPUs it could use at start.
void unpin_thread();
/// Whether cpu_at(0) and cpu_at(1) are threads of one core, or one CPU, as far as the kernel tells.
bool first_cpus_share_core();
/// Nanoseconds of a monotonic clock.
std::int64_t now_ns();
/// Nanoseconds that the calling thread has run. What only it does is measured by this clock, so
/// that other processes on the machine do not count.
std::int64_t cpu_ns();

Area ring_area();
Area comp_area();
Area rcu_area();
Area iommu_area();
Area kxo_area();
Area trace_area();

}  // namespace tandem::bench
