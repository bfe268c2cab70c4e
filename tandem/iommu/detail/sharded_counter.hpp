// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "tandem/base/cpu.hpp"

namespace tandem::iommu::detail {

inline constexpr unsigned kCounterShards = 64;

/// This thread's shard, in [0, kCounterShards); the last one is shared by all threads too many.
unsigned counter_shard_slow() noexcept;
inline constinit thread_local unsigned counter_shard_plus_one = 0;

inline unsigned counter_shard() noexcept {
  const unsigned plus_one = counter_shard_plus_one;
  return plus_one != 0 ? plus_one - 1 : counter_shard_slow();
}

/// A count that threads raise without writing a line that others write.
///
/// Thread safety: any thread. total() sees at least what happened before it.
class ShardedCounter {
 public:
  void add() noexcept {
    const unsigned shard = counter_shard();
    auto& value = shards_[shard].value;
    if (shard == kCounterShards - 1) [[unlikely]] {
      value.fetch_add(1, std::memory_order_relaxed);
    } else {  // this thread is the only writer
      value.store(value.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
  }

  std::uint64_t total() const noexcept {
    std::uint64_t sum = 0;
    for (const auto& shard : shards_) sum += shard.value.load(std::memory_order_relaxed);
    return sum;
  }

 private:
  struct alignas(kCacheLine) Shard {
    std::atomic<std::uint64_t> value{0};
  };
  std::array<Shard, kCounterShards> shards_{};
};

}  // namespace tandem::iommu::detail
