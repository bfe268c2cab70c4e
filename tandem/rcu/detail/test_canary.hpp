// SPDX-License-Identifier: Apache-2.0
/// Objects whose early reclamation readers notice. For tests; not installed.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu::detail {

inline constexpr std::uint64_t kAlive = 0x600D'600D'600D'600D;
inline constexpr std::uint64_t kPoison = 0xDEAD'DEAD'DEAD'DEAD;

/// An object whose memory stays readable after its deletion, so that a too early deletion shows as
/// poison and not as a crash.
struct Canary {
  std::atomic<std::uint64_t> word{kAlive};
  bool alive() const { return word.load(std::memory_order_relaxed) == kAlive; }
  void poison() { word.store(kPoison, std::memory_order_relaxed); }
  void revive() { word.store(kAlive, std::memory_order_relaxed); }
};

/// Canaries that updaters replace while readers look at them.
struct Updates {
  static constexpr int kSlots = 64;
  std::vector<Canary> pool = std::vector<Canary>(kSlots);
  std::atomic<Canary*> current{&pool[0]};
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> violations{0};
  std::atomic<std::uint64_t> sections{0};

  void read(rcu_domain& domain, int depth) {
    for (int i = 0; i < depth; ++i) domain.lock();
    const Canary* seen = current.load(std::memory_order_acquire);
    for (int i = 0; i < 50; ++i) {
      if (!seen->alive()) violations.fetch_add(1);
      if (i == 25 && depth > 1) domain.unlock();
      if (i == 25 && sections.load() % 64 == 0) std::this_thread::yield();
    }
    for (int i = 0; i < (depth > 1 ? depth - 1 : depth); ++i) domain.unlock();
    sections.fetch_add(1);
  }
};

}  // namespace tandem::rcu::detail
