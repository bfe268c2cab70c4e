// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/thread_state.hpp"

namespace tandem::pcie::detail {

constinit thread_local ThreadState thread_state;

namespace {

std::atomic<std::uint64_t> shards_in_use{0};
static_assert(kShards == 64, "one bit each");

/// Gives the shard back when its thread exits. Release and acquire on the bits order the counters
/// that this thread wrote before those of the next owner.
struct ShardLease {
  unsigned index = kShards;
  ~ShardLease() {
    // Destructors that run after this one count in the shared shard.
    thread_state.shard = kShards + 1;
    if (index < kShards) {
      shards_in_use.fetch_and(~(std::uint64_t{1} << index), std::memory_order_release);
    }
  }
};

}  // namespace

unsigned assign_shard() noexcept {
  static thread_local ShardLease lease;
  std::uint64_t used = shards_in_use.load(std::memory_order_relaxed);
  while (used != ~std::uint64_t{0}) {
    const auto index = static_cast<unsigned>(__builtin_ctzll(~used));
    if (shards_in_use.compare_exchange_weak(used, used | std::uint64_t{1} << index,
                                            std::memory_order_acquire)) {
      lease.index = index;
      break;
    }
  }
  thread_state.shard = lease.index + 1;
  return lease.index;
}

EndpointStats ShardedStats::sum() const noexcept {
  EndpointStats total;
  for (const Shard& shard : shards_) {
    total.translations += shard.translations.load(std::memory_order_relaxed);
    total.atc_hits += shard.atc_hits.load(std::memory_order_relaxed);
    total.page_requests += shard.page_requests.load(std::memory_order_relaxed);
    total.invalidations += shard.invalidations.load(std::memory_order_relaxed);
  }
  return total;
}

}  // namespace tandem::pcie::detail
