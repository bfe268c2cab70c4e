// SPDX-License-Identifier: Apache-2.0
/// The part of index_map.hpp that does not depend on the element's type. Private: index_map.hpp
/// alone includes it from outside the module.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

#include "tandem/base/mutex.hpp"
#include "tandem/base/result.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu::detail {

/// 64 slots: elements where `shift` is 0, else nodes, each for 1 << shift indices.
///
/// Readers use the slots alone. A node that is replaced keeps them, for readers that are in it.
struct IndexNode : rcu_obj_base<IndexNode> {
  explicit IndexNode(unsigned log2_indices) noexcept : shift(log2_indices) {}

  static constexpr unsigned kBits = 6;
  static constexpr unsigned kSlots = 1 << kBits;

  /// Whether `index` lies below this node if it is the root.
  bool covers(std::uint64_t index) const noexcept { return index >> shift < kSlots; }
  unsigned slot_of(std::uint64_t index) const noexcept {
    return static_cast<unsigned>(index >> shift) % kSlots;
  }
  IndexNode* child(unsigned slot) const noexcept {
    return static_cast<IndexNode*>(slots[slot].load(std::memory_order_acquire));  // (A)
  }

  const unsigned shift;
  std::uint64_t used = 0;  // updaters only: the slots that are not null
  std::uint64_t full = 0;  // updaters only: the slots below which no index is free
  std::array<std::atomic<void*>, kSlots> slots{};  // updaters write, readers follow
};

/// Thread safety: load(), next() and visit() in a section; the others any thread, serialized here.
/// Ordering:      (A) who stores a pointer releases what it leads to, readers acquire it.
class IndexCore {
 public:
  explicit IndexCore(rcu_domain& domain) noexcept : domain_(domain) {}
  ~IndexCore();
  IndexCore(const IndexCore&) = delete;
  IndexCore& operator=(const IndexCore&) = delete;

  struct Entry {
    std::uint64_t index;
    void* element;
  };

  rcu_domain& domain() const noexcept { return domain_; }

  void* load(std::uint64_t index) const noexcept {
    const IndexNode* node = root_.load(std::memory_order_acquire);  // (A)
    if (node == nullptr || !node->covers(index)) return nullptr;
    while (node->shift != 0) {
      node = node->child(node->slot_of(index));
      if (node == nullptr) return nullptr;
    }
    return node->slots[node->slot_of(index)].load(std::memory_order_acquire);  // (A)
  }
  /// The first element at `from` or above.
  std::optional<Entry> next(std::uint64_t from) const noexcept;
  /// Calls `fn(index, element)` in ascending order.
  template <class Fn>
  void visit(Fn& fn) const {
    if (const IndexNode* const root = root_.load(std::memory_order_acquire)) {  // (A)
      visit_node(*root, 0, fn);
    }
  }

  Result<void*> store(std::uint64_t index, void* element) TANDEM_EXCLUDES(mutex_);
  void* erase(std::uint64_t index) noexcept TANDEM_EXCLUDES(mutex_);
  Result<std::uint64_t> allocate(void* element, std::uint64_t first, std::uint64_t last)
      TANDEM_EXCLUDES(mutex_);

 private:
  /// The nodes from the root to an index's leaf.
  struct Path {
    std::array<IndexNode*, 64 / IndexNode::kBits + 1> nodes;
    unsigned count = 0;
  };

  /// Nodes that a change takes out. Retired at the end of its life, without the lock: where there
  /// is no worker that runs deleters, and those may use the map.
  class Retired {
   public:
    explicit Retired(IndexCore& core) : core_(core) {}
    Retired(const Retired&) = delete;
    Retired& operator=(const Retired&) = delete;
    ~Retired() {
      for (unsigned i = 0; i < count_; ++i) core_.retire(*nodes_[i]);
    }
    void add(IndexNode& node) noexcept { nodes_[count_++] = &node; }

   private:
    IndexCore& core_;
    std::array<IndexNode*, 2 * std::tuple_size_v<decltype(Path::nodes)>> nodes_;  // a path, roots
    unsigned count_ = 0;
  };

  template <class Fn>
  static void visit_node(const IndexNode& node, std::uint64_t base, Fn& fn) {
    for (unsigned slot = 0; slot < IndexNode::kSlots; ++slot) {
      void* const below = node.slots[slot].load(std::memory_order_acquire);  // (A)
      if (below == nullptr) continue;
      const std::uint64_t start = base + (std::uint64_t{slot} << node.shift);
      if (node.shift == 0) {
        fn(start, below);
      } else {
        visit_node(*static_cast<const IndexNode*>(below), start, fn);
      }
    }
  }

  Result<void*> store_locked(std::uint64_t index, void* element, Retired& retired)
      TANDEM_REQUIRES(mutex_);
  /// Makes the nodes that lead to `index`. Returns: false without memory.
  bool extend_locked(std::uint64_t index, Path& path) TANDEM_REQUIRES(mutex_);
  void prune_locked(std::uint64_t index, const Path& path, Retired& retired) noexcept
      TANDEM_REQUIRES(mutex_);
  void retire(IndexNode& node) noexcept;
  static void destroy(IndexNode* node) noexcept;

  rcu_domain& domain_;
  Mutex mutex_;
  std::atomic<IndexNode*> root_{nullptr};  // written under mutex_
};

}  // namespace tandem::rcu::detail
