// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "tandem/base/cpu.hpp"
#include "tandem/pcie/pcie.hpp"

namespace tandem::pcie::detail {

/// What a thread keeps about its own accesses to any endpoint.
struct ThreadState {
  EndpointStats stats;
  unsigned windows = 0;  ///< alive, made by this thread
  unsigned shard = 0;    ///< 1 + index while assigned; see thread_shard()
};
extern constinit thread_local ThreadState thread_state;

/// Shards that one thread writes alone; threads beyond share one more.
inline constexpr unsigned kShards = 64;

unsigned assign_shard() noexcept;

/// This thread's shard index; at most kShards, which is the shared one.
inline unsigned thread_shard() noexcept {
  const unsigned shard = thread_state.shard;
  return shard != 0 ? shard - 1 : assign_shard();
}

/// An endpoint's counters. add() writes a line that no other thread writes.
class ShardedStats {
 public:
  void add(const EndpointStats& more) noexcept {
    const unsigned index = thread_shard();
    Shard& shard = shards_[index];
    add(shard.translations, more.translations, index);
    add(shard.atc_hits, more.atc_hits, index);
    add(shard.page_requests, more.page_requests, index);
    add(shard.invalidations, more.invalidations, index);
  }
  EndpointStats sum() const noexcept;

 private:
  struct alignas(kCacheLine) Shard {
    std::atomic<std::uint64_t> translations{0};
    std::atomic<std::uint64_t> atc_hits{0};
    std::atomic<std::uint64_t> page_requests{0};
    std::atomic<std::uint64_t> invalidations{0};
  };
  static void add(std::atomic<std::uint64_t>& counter, std::uint64_t more,
                  unsigned index) noexcept {
    if (more == 0) return;
    if (index == kShards) {
      counter.fetch_add(more, std::memory_order_relaxed);
    } else {
      counter.store(counter.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
    }
  }
  std::array<Shard, kShards + 1> shards_;
};

}  // namespace tandem::pcie::detail
