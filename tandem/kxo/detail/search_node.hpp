// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sched.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <new>

#include "tandem/base/field.hpp"
#include "tandem/base/planted_fault.hpp"

namespace tandem::kxo::detail {

/// What a move is worth to who made it. `kOpen`: nothing is proven yet.
enum class Proof : std::uint8_t { kOpen, kLoss, kDraw, kWin };

/// The results of the iterations that came through a node, and what selection makes of them.
///
/// Counts are exact: they are one word, so that visits and sum belong together. `mean` and `spread`
/// follow from them; a thread may overwrite newer ones with its own until the next visit. Nothing
/// but the order in which children are tried depends on them.
/// Thread safety: any thread may read. Writers: any with `kShared`, else one and no other thread.
/// Ordering: relaxed, nothing is reached through it.
class Statistics {
 public:
  struct Counts {
    std::uint32_t visits = 0;
    std::int32_t sum = 0;  // of results: 1 for each win, -1 for each loss
  };

  Counts counts() const noexcept { return counts_of(counts_.load(std::memory_order_relaxed)); }
  /// The upper confidence bound; infinite before the first visit, and below all others of a child
  /// that is ruled out.
  float bound(float factor) const noexcept {
    return mean_.load(std::memory_order_relaxed) + factor * spread_.load(std::memory_order_relaxed);
  }

  /// Adds to both; the visits do not become less than none. Returns: the counts then.
  template <bool kShared>
  Counts add(std::int64_t visits, std::int64_t sum) noexcept {
    // Two numbers in a word are added at once; the lower one neither carries nor borrows.
    const std::uint64_t change =
        (static_cast<std::uint64_t>(sum) << 32) + static_cast<std::uint64_t>(visits);
    const Counts now = counts_of(before<kShared>(change) + change);
    const float share = 1.0F / static_cast<float>(now.visits);
    mean_.store(static_cast<float>(now.sum) * share, std::memory_order_relaxed);
    spread_.store(std::sqrt(share), std::memory_order_relaxed);
    return now;
  }
  /// Never to be chosen again.
  void rule_out() noexcept {
    mean_.store(-std::numeric_limits<float>::infinity(), std::memory_order_relaxed);
    spread_.store(0, std::memory_order_relaxed);
  }
  /// Takes over another node's. One thread, while no other one looks.
  void copy(const Statistics& other) noexcept {
    counts_.store(other.counts_.load(std::memory_order_relaxed), std::memory_order_relaxed);
    mean_.store(other.mean_.load(std::memory_order_relaxed), std::memory_order_relaxed);
    spread_.store(other.spread_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  }

 private:
  static Counts counts_of(std::uint64_t word) noexcept {
    return {static_cast<std::uint32_t>(word), static_cast<std::int32_t>(word >> 32)};
  }
  /// Adds `change` and returns what was there.
  template <bool kShared>
  std::uint64_t before(std::uint64_t change) noexcept {
    static const bool loses = planted_fault("kxo-lost-visit");
    if (kShared && !loses) return counts_.fetch_add(change, std::memory_order_relaxed);
    const std::uint64_t word = counts_.load(std::memory_order_relaxed);
    if (kShared) ::sched_yield();  // the fault, in a moment that is long enough
    counts_.store(word + change, std::memory_order_relaxed);
    return word;
  }

  std::atomic<std::uint64_t> counts_{0};
  std::atomic<float> mean_{std::numeric_limits<float>::infinity()};
  std::atomic<float> spread_{0};  // 1 / sqrt(visits)
};
static_assert(sizeof(Statistics) == 16);

/// Which move leads to a node, what is proven of it, and where its children are. They change only
/// once: from no children to all of them, and from open to proven.
class Link {
 public:
  Link() = default;
  Link(unsigned cell, Proof proof) noexcept
      : word_(Cell::make(cell) | ProofField::make(static_cast<std::uint64_t>(proof))) {}

  /// The move.
  int cell() const noexcept { return static_cast<int>(Cell::get(word_)); }
  Proof proof() const noexcept { return static_cast<Proof>(ProofField::get(word_)); }
  bool open() const noexcept { return proof() == Proof::kOpen; }
  /// 0: a leaf.
  unsigned children() const noexcept { return static_cast<unsigned>(Children::get(word_)); }
  /// NodeStore's name of them.
  std::uint32_t first() const noexcept { return static_cast<std::uint32_t>(First::get(word_)); }

  [[nodiscard]] Link with(Proof proof) const noexcept {
    return Link(ProofField::set(word_, static_cast<std::uint64_t>(proof)));
  }
  [[nodiscard]] Link with_children(std::uint32_t first, unsigned children) const noexcept {
    return Link(Children::set(First::set(word_, first), children));
  }

 private:
  using First = Field<31, 0>;
  using Children = Field<39, 32>;
  using Cell = Field<47, 40>;
  using ProofField = Field<49, 48>;

  explicit Link(std::uint64_t word) noexcept : word_(word) {}
  std::uint64_t word_ = 0;
};
static_assert(sizeof(Link) == 8 && std::atomic<Link>::is_always_lock_free);

/// A node: where its two halves are.
struct Node {
  Statistics* statistics;
  std::atomic<Link>* link;
};

/// The children of a node. What they are chosen by stands together, in as few cache lines as can
/// be.
struct Block {
  Statistics* statistics;
  std::atomic<Link>* links;

  Node node(unsigned i) const noexcept { return {&statistics[i], &links[i]}; }
  /// The first thing that happens to child `i`, in memory that holds anything.
  Node make(unsigned i, Link link) const noexcept {
    return {new (&statistics[i]) Statistics, new (&links[i]) std::atomic<Link>(link)};
  }
};

}  // namespace tandem::kxo::detail
