// SPDX-License-Identifier: Apache-2.0
/// `tandem bench trace`: what a trace point costs while its category is off, and while it is on.
#include <cstdint>
#include <ctime>
#include <vector>

#include "bench/harness.hpp"
#include "tandem/trace/trace.hpp"

namespace tandem::bench {
namespace {

using Target = Case::Target;

/// 5 % of a core at 100,000 events a second.
constexpr double kOnNs = 500;

/// Nanoseconds of one round of a loop around `body`. The compiler keeps it in place.
template <class Body>
double ns_a_round(std::uint64_t rounds, Body body) {
  const std::int64_t start = cpu_ns();
  for (std::uint64_t i = 0; i < rounds; ++i) {
    body(i);
    asm volatile("" : : "r"(i) : "memory");
  }
  return static_cast<double>(cpu_ns() - start) / static_cast<double>(rounds);
}

double point_ns(trace::Categories categories, std::uint64_t rounds) {
  trace::enable(categories);
  const double with = ns_a_round(rounds, [](std::uint64_t i) { TANDEM_TRACE(park, i, 1); });
  trace::enable(trace::kNoCategories);
  const double without = ns_a_round(rounds, [](std::uint64_t) {});
  return with > without ? with - without : 0;
}

double clock_ns(std::uint64_t rounds) {
  return ns_a_round(rounds, [](std::uint64_t) {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
  });
}

std::vector<Case> cases(const Options& options) {
  const std::uint64_t rounds = options.quick ? 300'000 : 3'000'000;
  constexpr auto kOther = static_cast<trace::Categories>(trace::Category::kMark);
  return {{.name = "trace/point/off",
           .unit = "ns",
           .peer_name = "",
           .target = Target::kAtMost,
           .limit = 1,
           .ours = [=] { return point_ns(trace::kNoCategories, 10 * rounds); },
           .peer = {}},
          {.name = "trace/point/other-category",
           .unit = "ns",
           .peer_name = "",
           .target = Target::kAtMost,
           .limit = 1,
           .ours = [=] { return point_ns(kOther, 10 * rounds); },
           .peer = {}},
          {.name = "trace/point/on",
           .unit = "ns",
           .peer_name = "clock_gettime(CLOCK_MONOTONIC), which is part of it",
           .target = Target::kAtMost,
           .limit = kOnNs,
           .ours = [=] { return point_ns(trace::kAllCategories, rounds); },
           .peer = [=] { return clock_ns(rounds); }}};
}

}  // namespace

Area trace_area() { return {.name = "trace", .what = "a trace point, off and on", .cases = cases}; }

}  // namespace tandem::bench
