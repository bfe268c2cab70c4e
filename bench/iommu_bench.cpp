// SPDX-License-Identifier: Apache-2.0
/// `tandem bench iommu`: what a translation, a walk, a DMA and a page fault cost.
#include <fmt/format.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/harness.hpp"
#include "bench/iommu_accesses.hpp"
#include "bench/iommu_faults.hpp"
#include "bench/iommu_hits.hpp"

namespace tandem::bench {
namespace {

using iommu::Pasid;
using Target = Case::Target;

constexpr const char* kMutexPeer = "one mutex and a hash map, as emulators have (written for this)";
/// The specification's C reference model (iommu_ref_model), one thread, best seen of several runs
/// on a quiet machine of this kind: 37.9 M hits, 6.4 M Sv48 misses, 2.5 M Sv48 on Sv48x4 misses a
/// second. Not measured in this run.
constexpr const char* kReferencePeer = "reference model's best, a constant: not in this run";
constexpr double kReferenceHitNs = 26;
constexpr double kReferenceSv48Ns = 156;
constexpr double kReferenceNestedNs = 400;

/// `time()` on the first CPU.
template <class Time>
double on_one_cpu(Time time) {
  pin_thread(0);
  const double result = time();
  unpin_thread();
  return result;
}

void add_hits(std::vector<Case>& list, const std::shared_ptr<Hits>& hits, long rounds) {
  const auto peer = make_peer();
  const auto hit = [=] { return on_one_cpu([&] { return hits->ns(rounds); }); };
  list.push_back({.name = "iommu/hit/one-thread",
                  .unit = "ns",
                  .peer_name = kMutexPeer,
                  .target = Target::kAtMost,
                  .limit = 8,
                  .ours = hit,
                  .peer = [=] { return on_one_cpu([&] { return peer_hit_ns(*peer, rounds); }); }});
  list.push_back({.name = "iommu/hit/reference-model",
                  .unit = "ns",
                  .peer_name = kReferencePeer,
                  .target = Target::kNone,
                  .ours = hit,
                  .peer = [] { return kReferenceHitNs; },
                  .samples = 3});
  list.push_back(
      {.name = "iommu/hit/invalidations:1000",
       .unit = "ns",
       .peer_name = "undisturbed; one is 1/0.7 times as long at most",
       .target = Target::kAtMostRatio,
       .limit = 1 / 0.7,
       .ours = [=] { return ns_while_invalidating(*hits, 5 * rounds, /*invalidate=*/true); },
       .peer = [=] { return ns_while_invalidating(*hits, 5 * rounds, /*invalidate=*/false); }});
}

void add_threads(std::vector<Case>& list, const std::shared_ptr<Hits>& hits, long rounds) {
  const auto other = std::make_shared<Hits>();
  const auto peer = make_peer();
  constexpr Pasid kFirst = Hits::kPasid;
  constexpr Pasid kSecond{kFirst.value + 1};
  const auto shared = [=](Pasid second) {
    return rate_of_two(*hits, kFirst, *hits, second, rounds);
  };
  for (const auto& [tag, second] : {std::pair("same-pasid", kFirst), {"two-pasids", kSecond}}) {
    list.push_back({.name = fmt::format("iommu/threads:2/{}", tag),
                    .unit = "op/s",
                    .peer_name = "two threads on two IOMMUs",
                    .higher_is_better = true,
                    .target = Target::kAtLeastRatio,
                    .limit = 0.9,
                    .ours = [=, pasid = second] { return shared(pasid); },
                    .peer = [=] { return rate_of_two(*hits, kFirst, *other, kFirst, rounds); }});
  }
  list.push_back({.name = "iommu/threads:2/one-thread",
                  .unit = "op/s",
                  .peer_name = "one thread; counts where the CPUs are separate cores",
                  .higher_is_better = true,
                  .target = first_cpus_share_core() ? Target::kNone : Target::kAtLeastRatio,
                  .limit = 1.8,
                  .ours = [=] { return shared(kFirst); },
                  .peer = [=] { return rate_of_one(*hits, rounds); }});
  list.push_back({.name = "iommu/threads:2/mutex",
                  .unit = "op/s",
                  .peer_name = kMutexPeer,
                  .higher_is_better = true,
                  .target = Target::kNone,
                  .ours = [=] { return shared(kFirst); },
                  .peer = [=] { return peer_rate_of_two(*peer, rounds / 10); }});
}

void add_walks(std::vector<Case>& list, long rounds) {
  for (const bool nested : {false, true}) {
    const auto walks = std::make_shared<Walks>(nested);
    const std::string name = nested ? "iommu/walk/sv48-sv48x4" : "iommu/walk/sv48";
    const auto reference = [=] { return nested ? kReferenceNestedNs : kReferenceSv48Ns; };
    list.push_back({.name = name,
                    .unit = "ns",
                    .peer_name = "",
                    .target = Target::kAtMost,
                    .limit = nested ? 150.0 : 60.0,
                    .ours = [=] { return on_one_cpu([&] { return walks->ns(rounds / 10); }); },
                    .peer = {}});
    list.push_back(
        {.name = name + "/first",
         .unit = "ns",
         .peer_name = kReferencePeer,
         .target = Target::kNone,
         .ours = [=] { return on_one_cpu([&] { return walks->ns_of_first(rounds / 10); }); },
         .peer = reference});
    list.push_back({.name = name + "/cold",
                    .unit = "ns",
                    .peer_name = "",
                    .target = Target::kNone,
                    .ours = [=] { return on_one_cpu([&] { return walks->ns_cold(rounds / 10); }); },
                    .peer = {}});
  }
}

void add_dma(std::vector<Case>& list, long rounds) {
  const auto dma = std::make_shared<Dma>();
  for (const std::size_t bytes : {std::size_t{64}, std::size_t{4096}}) {
    const auto memcpy_ns = [=] { return dma->memcpy_ns(rounds, bytes); };
    list.push_back(
        {.name = fmt::format("iommu/dma:{}/over-memcpy", bytes),
         .unit = "ns",
         .peer_name = "memcpy alone, all of it",
         .target = Target::kAtMost,
         .limit = 15,
         .ours = [=] { return on_one_cpu([&] { return dma->ns(rounds, bytes) - memcpy_ns(); }); },
         .peer = [=] { return on_one_cpu(memcpy_ns); }});
  }
}

void add_faults(std::vector<Case>& list, bool quick) {
  const int rounds = quick ? 2'000 : 20'000;
  const auto add = [&](const char* name, Reach reach, bool elsewhere) {
    list.push_back({.name = name,
                    .unit = "ns",
                    .peer_name = "the same read when warm",
                    .target = Target::kAtMost,
                    .limit = reach == Reach::kBroker ? 5000.0 : 2000.0,
                    .ours = [=] { return read_times(reach, rounds, elsewhere).faulting; },
                    .peer = [=] { return read_times(reach, rounds, elsewhere).warm; }});
  };
  add("iommu/page-fault/reserved", Reach::kReserved, false);
  add("iommu/page-fault/embedded", Reach::kEmbedded, false);
  add("iommu/page-fault/embedded/elsewhere", Reach::kEmbedded, true);
  add("iommu/page-fault/broker", Reach::kBroker, false);
  add("iommu/page-fault/broker/elsewhere", Reach::kBroker, true);
  list.push_back({.name = "iommu/memory-per-pasid",
                  .unit = "bytes",
                  .peer_name = "",
                  .target = Target::kAtMost,
                  .limit = 4096,
                  .ours = [] { return bytes_per_pasid(1000); },
                  .peer = {},
                  .samples = 1});
}

void add_scale(std::vector<Case>& list, long rounds) {
  constexpr std::uint32_t kPasids = 100'000;
  constexpr std::uint32_t kDevices = 10'000;
  const auto hits = std::make_shared<Hits>(kPasids);
  for (const std::uint32_t count : {kPasids / 10, kPasids}) {
    const auto of = [=](std::uint32_t pasids) {
      return on_one_cpu([&] { return hits->ns_over_pasids(rounds, pasids); });
    };
    list.push_back({.name = fmt::format("iommu/pasids:{}/in-turn", count),
                    .unit = "ns",
                    .peer_name = "one PASID",
                    .target = Target::kAtMostRatio,
                    .limit = count == kPasids ? 6.0 : 2.0,
                    .ours = [=] { return of(count); },
                    .peer = [=] { return of(1); }});
  }
  const auto many = std::make_shared<Devices>(kDevices);
  const auto single = std::make_shared<Devices>(1);
  list.push_back({.name = fmt::format("iommu/devices:{}", kDevices),
                  .unit = "ns",
                  .peer_name = "one device",
                  .target = Target::kAtMostRatio,
                  .limit = 2,
                  .ours = [=] { return on_one_cpu([&] { return many->ns(rounds); }); },
                  .peer = [=] { return on_one_cpu([&] { return single->ns(rounds); }); }});
}

std::vector<Case> cases(const Options& options) {
  const long rounds = options.quick ? 1'000'000 : 10'000'000;
  std::vector<Case> list;
  const auto hits = std::make_shared<Hits>();
  add_hits(list, hits, rounds);
  add_threads(list, hits, rounds);
  add_walks(list, rounds);
  add_dma(list, rounds / 5);
  add_faults(list, options.quick);
  add_scale(list, rounds);
  return list;
}

}  // namespace

Area iommu_area() {
  return {"iommu", "translation: hits, walks, DMA, page faults, many PASIDs", cases};
}

}  // namespace tandem::bench
