// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/sharded_counter.hpp"

namespace tandem::iommu::detail {
namespace {

/// Bit i: a living thread owns shard i. Taken with acquire, given back with release, so that a
/// shard's next owner sees its last owner's count.
std::atomic<std::uint64_t> owned_shards{0};

struct ShardOwner {
  unsigned shard = kCounterShards - 1;

  ShardOwner() noexcept {
    std::uint64_t owned = owned_shards.load(std::memory_order_relaxed);
    while (true) {
      const auto candidate = static_cast<unsigned>(__builtin_ctzll(~owned));
      if (candidate >= kCounterShards - 1) return;  // all taken: the shared one
      if (owned_shards.compare_exchange_weak(owned, owned | std::uint64_t{1} << candidate,
                                             std::memory_order_acquire,
                                             std::memory_order_relaxed)) {
        shard = candidate;
        return;
      }
    }
  }
  ~ShardOwner() {
    counter_shard_plus_one = kCounterShards;  // a late destructor of this thread counts here
    if (shard < kCounterShards - 1) {
      owned_shards.fetch_and(~(std::uint64_t{1} << shard), std::memory_order_release);
    }
  }
};

}  // namespace

void ShardedCounter::add_slowly() noexcept {
  static_assert(kCounterShards == 64, "one word says who owns what; bit 63 stays clear");
  if (counter_shard_plus_one == 0) {
    thread_local const ShardOwner owner;
    counter_shard_plus_one = owner.shard + 1;
  }
  const unsigned shard = counter_shard_plus_one - 1;
  if (shard < kCounterShards - 1) return add_alone(shard);
  shards_[shard].value.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace tandem::iommu::detail
