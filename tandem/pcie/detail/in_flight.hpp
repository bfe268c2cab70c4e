// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <utility>

#include "tandem/base/cpu.hpp"
#include "tandem/pcie/detail/thread_state.hpp"

namespace tandem::pcie::detail {

/// The accesses of an endpoint to I/O regions that are under way: they may block, so they run
/// outside of reader sections.
///
/// An access enters inside the section in which it found that its life lasts. The end of a life
/// waits for such sections and then for idle(). Thread safety: all calls, from any thread.
class InFlight {
 public:
  class Guard {
   public:
    Guard() = default;
    Guard(Guard&& other) noexcept : count_(std::exchange(other.count_, nullptr)) {}
    Guard& operator=(Guard&& other) noexcept {
      std::swap(count_, other.count_);
      return *this;
    }
    ~Guard() {
      if (count_ != nullptr) count_->fetch_sub(1, std::memory_order_release);  // (A)
    }

   private:
    friend class InFlight;
    explicit Guard(std::atomic<std::uint32_t>& count) : count_(&count) {}
    std::atomic<std::uint32_t>* count_ = nullptr;
  };

  Guard enter() {
    std::atomic<std::uint32_t>& count = shards_[thread_shard()].count;
    count.fetch_add(1, std::memory_order_relaxed);
    return Guard(count);
  }
  bool idle() const {
    return std::all_of(shards_.begin(), shards_.end(), [](const Shard& shard) {
      return shard.count.load(std::memory_order_acquire) == 0;  // (A)
    });
  }

 private:
  struct alignas(kCacheLine) Shard {
    std::atomic<std::uint32_t> count{0};
  };
  std::array<Shard, kShards + 1> shards_;
};

}  // namespace tandem::pcie::detail
