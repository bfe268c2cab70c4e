// SPDX-License-Identifier: Apache-2.0
#include "bench/harness.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <sys/utsname.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace tandem::bench {
namespace {

const cpu_set_t& cpus_at_start() {
  static const cpu_set_t set = [] {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    ::sched_getaffinity(0, sizeof mask, &mask);
    return mask;
  }();
  return set;
}

Summary summarize(std::vector<double> samples, bool higher_is_better) {
  std::sort(samples.begin(), samples.end());
  if (samples.empty()) return {};
  // The p99 is the bad end, whichever that is.
  const auto last = samples.size() - 1;
  const auto rank = static_cast<std::size_t>(0.99 * static_cast<double>(last) + 0.5);
  return {samples[samples.size() / 2], higher_is_better ? samples[last - rank] : samples[rank]};
}

struct Measured {
  Summary ours, peer;
  double ratio = 0;
  bool pass = false;
};

Measured measure(const Case& the_case, int samples) {
  std::vector<double> ours, peer;
  for (int i = 0; i <= samples; ++i) {
    const double one = the_case.ours();
    const double other = the_case.peer ? the_case.peer() : 0;
    if (i == 0) continue;  // warm-up
    ours.push_back(one);
    if (the_case.peer) peer.push_back(other);
  }
  Measured result{summarize(ours, the_case.higher_is_better),
                  summarize(peer, the_case.higher_is_better)};
  const double limit = the_case.limit;
  switch (the_case.target) {
    case Case::Target::kAtMostRatio:
      result.ratio = result.ours.median / result.peer.median;
      result.pass = result.ratio <= limit;
      break;
    case Case::Target::kAtLeastRatio:
      result.ratio = result.ours.median / result.peer.median;
      result.pass = result.ratio >= limit;
      break;
    case Case::Target::kTimesFaster:
      result.ratio = result.peer.median / result.ours.median;
      result.pass = result.ratio >= limit;
      break;
    case Case::Target::kAtMost:
      result.ratio = result.ours.median / limit;
      result.pass = result.ours.median <= limit;
      break;
    case Case::Target::kAtLeast:
      result.ratio = result.ours.median / limit;
      result.pass = result.ours.median >= limit;
      break;
    case Case::Target::kNone:
      result.ratio = the_case.peer ? result.ours.median / result.peer.median : 0;
      result.pass = true;
      break;
  }
  return result;
}

std::string target_text(const Case& the_case) {
  switch (the_case.target) {
    case Case::Target::kAtMostRatio:
      return fmt::format("<= {:g}x", the_case.limit);
    case Case::Target::kAtLeastRatio:
      return fmt::format(">= {:g}x", the_case.limit);
    case Case::Target::kTimesFaster:
      return fmt::format("{:g}x faster", the_case.limit);
    case Case::Target::kAtMost:
      return fmt::format("<= {:g} {}", the_case.limit, the_case.unit);
    case Case::Target::kAtLeast:
      return fmt::format(">= {:g} {}", the_case.limit, the_case.unit);
    case Case::Target::kNone:
      return "-";
  }
  return {};
}

/// The part of docs/performance.md that explains missed targets; empty when it cannot be found.
std::string documented_misses() {
  const char* path = std::getenv("TANDEM_PERFORMANCE_MD");
  std::ifstream file(path != nullptr ? path : TANDEM_SOURCE_DIR "/docs/performance.md");
  std::stringstream text;
  text << file.rdbuf();
  const std::string all = text.str();
  const auto start = all.find("## Misses");
  return start == std::string::npos ? std::string{} : all.substr(start);
}

/// The CPUs that share a core with `cpu`, itself among them: "0,2".
std::string threads_of_core(int cpu) {
  std::ifstream siblings(
      fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu));
  std::string together = "?";
  std::getline(siblings, together);
  return together;
}

std::string machine() {
  utsname name{};
  ::uname(&name);
  std::ifstream info("/proc/cpuinfo");
  std::string model = "unknown CPU";
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) {
      model = line.substr(line.find(':') + 2);
      break;
    }
  }
  return fmt::format("{} x {}, cpu0 shares its core with {}, Linux {}, {}",
                     CPU_COUNT(&cpus_at_start()), model, threads_of_core(0), name.release,
                     __VERSION__);
}

bool write_file(const std::string& path, const std::string& text) {
  std::ofstream out(path);
  out << text;
  out.close();
  if (out) return true;
  fmt::print(stderr, "tandem: bench: cannot write {}: {}\n", path,
             "is the folder there and writable?");
  return false;
}

}  // namespace

int cpu_at(int index) {
  const cpu_set_t& usable = cpus_at_start();
  int wanted = index % std::max(1, CPU_COUNT(&usable));
  int cpu = 0;
  while (!CPU_ISSET(cpu, &usable) || wanted-- != 0) ++cpu;
  return cpu;
}

bool first_cpus_share_core() { return threads_of_core(cpu_at(0)) == threads_of_core(cpu_at(1)); }

void pin_thread(int index) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu_at(index), &one);
  ::sched_setaffinity(0, sizeof one, &one);
}

void unpin_thread() { ::sched_setaffinity(0, sizeof(cpu_set_t), &cpus_at_start()); }

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::int64_t cpu_ns() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

int run_area(const Area& area, const Options& options) {
  cpus_at_start();
  fmt::print("{}: {}\n\n", area.name, machine());
  fmt::print("{:<34} {:>12} {:>12} {:>12} {:>7}  {:<12} {}\n", "case", "ours", "p99", "peer",
             "ratio", "target", "");
  const std::string misses = documented_misses();
  nlohmann::json report = nlohmann::json::array();
  bool failed = false;
  for (const Case& the_case : area.cases(options)) {
    if (the_case.name.find(options.only) == std::string::npos) continue;
    const int samples = the_case.samples > 0 ? the_case.samples : options.quick ? 9 : 31;
    Measured result;
    for (int attempt = 0; attempt < 3 && !result.pass; ++attempt) {
      result = measure(the_case, samples);
    }
    const bool documented = misses.find(the_case.name) != std::string::npos;
    failed |= !result.pass && !documented;
    fmt::print("{:<34} {:>12} {:>12} {:>12} {:>7}  {:<12} {}\n", the_case.name,
               fmt::format("{:.4g} {}", result.ours.median, the_case.unit),
               fmt::format("{:.4g}", result.ours.p99),
               the_case.peer ? fmt::format("{:.4g}", result.peer.median) : "-",
               result.ratio != 0 ? fmt::format("{:.2f}x", result.ratio) : "-",
               target_text(the_case),
               result.pass  ? "ok"
               : documented ? "MISSED (docs/performance.md)"
                            : "MISSED");
    if (!the_case.peer_name.empty()) fmt::print("{:<34} peer: {}\n", "", the_case.peer_name);
    std::fflush(stdout);
    report.push_back({{"case", the_case.name},
                      {"ours", result.ours.median},
                      {"ours_p99", result.ours.p99},
                      {"peer", the_case.peer ? nlohmann::json(result.peer.median) : nullptr},
                      {"peer_name", the_case.peer_name},
                      {"unit", the_case.unit},
                      {"ratio", result.ratio},
                      {"better", the_case.higher_is_better ? "higher" : "lower"},
                      {"target", target_text(the_case)},
                      {"pass", result.pass}});
  }
  if (!options.json_path.empty() && !write_file(options.json_path, report.dump(2) + '\n')) return 1;
  if (!options.svg_path.empty()) {
    if (!area.plot) {
      fmt::print(stderr, "tandem: bench: {} has no plot; try: tandem bench rcu --svg FILE\n",
                 area.name);
      return 2;
    }
    if (!write_file(options.svg_path, area.plot(report, machine()))) return 1;
  }
  return failed ? 1 : 0;
}

}  // namespace tandem::bench
