// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "tandem/base/cpu.hpp"

namespace tandem::iommu::detail {

inline constexpr unsigned kCounterShards = 64;

/// 1 + this thread's shard, in [0, kCounterShards); the last one is shared by all threads too many.
/// 0: it has none yet.
inline constinit thread_local unsigned counter_shard_plus_one = 0;

/// A count that threads raise without writing a line that others write.
///
/// Thread safety: any thread. total() sees at least what happened before it.
class ShardedCounter {
 public:
  void add() noexcept {
    const unsigned shard = counter_shard_plus_one - 1;
    if (shard >= kCounterShards - 1) [[unlikely]] {  // none yet, or the shared one
      return add_slowly();
    }
    add_alone(shard);
  }

  std::uint64_t total() const noexcept {
    std::uint64_t sum = 0;
    for (const auto& shard : shards_) sum += shard.value.load(std::memory_order_relaxed);
    return sum;
  }

 private:
  void add_slowly() noexcept;
  /// This thread is the only writer.
  void add_alone(unsigned shard) noexcept {
    auto& value = shards_.data()[shard].value;
    value.store(value.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }

  struct alignas(kCacheLine) Shard {
    std::atomic<std::uint64_t> value{0};
  };
  std::array<Shard, kCounterShards> shards_{};
};

}  // namespace tandem::iommu::detail
