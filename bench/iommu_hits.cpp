// SPDX-License-Identifier: Apache-2.0
#include "bench/iommu_hits.hpp"

#include <array>
#include <atomic>
#include <barrier>
#include <chrono>
#include <thread>

#include "bench/harness.hpp"
#include "bench/iommu_measure.hpp"
#include "tandem/base/check.hpp"

namespace tandem::bench {

using iommu::DeviceId;
using iommu::Pasid;

Hits::Hits(std::uint32_t pasids)
    : port_(board_.iommu().attach(IommuBoard::kDevice, device_).value()) {
  const Tables tables = board_.make_tables();
  const std::uint64_t data = board_.allocate(kPages * iommu::kPageBytes);
  for (std::uint64_t i = 0; i < kPages; ++i) {
    board_.map(tables, page(i).value, data + i * iommu::kPageBytes);
  }
  for (std::uint32_t i = 0; i < pasids; ++i) board_.set_process({kPasid.value + i}, tables);
}

double Hits::ns(long rounds, Pasid pasid) {
  const iommu::Requester requester{pasid, false};
  return ns_each(rounds, [&](std::uint64_t i) { translate(*port_, requester, page(i)); });
}

double Hits::ns_over_pasids(long rounds, std::uint32_t count) {
  std::uint32_t next = 0;
  const auto once = [&](std::uint64_t) {
    translate(*port_, {Pasid{kPasid.value + next}, false}, page(0));
    if (++next == count) next = 0;
  };
  ns_each(count, once);
  return ns_each(rounds, once);
}

Devices::Devices(std::uint32_t count) {
  const Tables tables = board_.make_tables();
  board_.map(tables, Hits::kFirstPage, board_.allocate(iommu::kPageBytes));
  for (std::uint32_t i = 0; i < count; ++i) {
    const DeviceId id{1000 + i};
    board_.set_device(id, i, tables);
    ports_.push_back(board_.iommu().attach(id, device_).value());
  }
}

double Devices::ns(long rounds) {
  std::size_t next = 0;
  const auto once = [&](std::uint64_t) {
    translate(*ports_[next], {}, Hits::page(0));
    if (++next == ports_.size()) next = 0;
  };
  ns_each(static_cast<long>(ports_.size()), once);
  return ns_each(rounds, once);
}

std::shared_ptr<MutexIotlb> make_peer() {
  auto peer = std::make_shared<MutexIotlb>();
  for (std::uint64_t i = 0; i < Hits::kPages; ++i) {
    peer->fill({IommuBoard::kDevice.value, Hits::kPasid.value, Hits::page(i).value >> 12},
               {i << 12, true, true});
  }
  return peer;
}

double peer_hit_ns(MutexIotlb& peer, long rounds) {
  return ns_each(rounds, [&](std::uint64_t i) {
    const auto found = peer.translate(IommuBoard::kDevice.value, Hits::kPasid.value,
                                      Hits::page(i).value, /*write=*/false);
    TANDEM_CHECK(found.has_value());
    asm volatile("" : : "r"(*found));
  });
}

namespace {

/// Operations a second, in all, of two threads at once, each on a CPU of its own. `run(thread,
/// rounds)` says how many nanoseconds one took.
template <class Run>
double rate_of_threads(long rounds, Run run) {
  std::barrier start(2);
  std::array<double, 2> rates{};
  std::vector<std::jthread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      pin_thread(i);
      run(i, rounds / 100);
      start.arrive_and_wait();
      rates[static_cast<std::size_t>(i)] = 1e9 / run(i, rounds);
    });
  }
  threads.clear();
  return rates[0] + rates[1];
}

}  // namespace

double rate_of_two(Hits& of_one, Pasid pasid_of_one, Hits& of_other, Pasid pasid_of_other,
                   long rounds) {
  return rate_of_threads(rounds, [&](int thread, long count) {
    return thread == 0 ? of_one.ns(count, pasid_of_one) : of_other.ns(count, pasid_of_other);
  });
}

double peer_rate_of_two(MutexIotlb& peer, long rounds) {
  return rate_of_threads(rounds, [&](int, long count) {
    const auto begin = now_ns();  // a thread that waits for the mutex may sleep
    peer_hit_ns(peer, count);
    return static_cast<double>(now_ns() - begin) / static_cast<double>(count);
  });
}

double rate_of_one(Hits& hits, long rounds) {
  pin_thread(0);
  const double rate = 1e9 / hits.ns(rounds);
  unpin_thread();
  return rate;
}

double ns_while_invalidating(Hits& hits, long rounds, bool invalidate) {
  std::atomic<bool> stop{false};
  std::jthread other([&] {
    pin_thread(1);
    auto next = std::chrono::steady_clock::now();
    for (std::uint64_t i = 0; invalidate && !stop.load(std::memory_order_relaxed); ++i) {
      const std::uint64_t at =
          i % 16 == 0 ? Hits::page(i / 16).value : Hits::kFirstPage + (i << 20);
      hits.board().run({iommu::iotinval_vma(at, Hits::kPasid.value), iommu::iofence_c({})});
      next += std::chrono::milliseconds(1);
      std::this_thread::sleep_until(next);
    }
  });
  pin_thread(0);
  hits.ns(rounds / 100);
  const double result = hits.ns(rounds);
  unpin_thread();
  stop = true;
  return result;
}

}  // namespace tandem::bench
