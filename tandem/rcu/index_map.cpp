// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/index_map.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <new>

#include "tandem/base/planted_fault.hpp"

namespace tandem::rcu::detail {
namespace {

constexpr std::uint64_t bit(unsigned slot) noexcept { return std::uint64_t{1} << slot; }

/// Nodes go up to the shift 60, whose upper slots no index reaches.
constexpr std::uint64_t reach(const IndexNode& node) noexcept {
  const unsigned bits = node.shift + IndexNode::kBits;
  return bits >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1;
}

/// The first element of `node`, whose first index is `base`, at `from` or above.
std::optional<IndexCore::Entry> next_in(const IndexNode& node, std::uint64_t base,
                                        std::uint64_t from) noexcept {
  unsigned slot = from > base ? static_cast<unsigned>((from - base) >> node.shift) : 0;
  for (; slot < IndexNode::kSlots; ++slot) {
    void* const below = node.slots[slot].load(std::memory_order_acquire);  // (A)
    if (below == nullptr) continue;
    const std::uint64_t start = base + (std::uint64_t{slot} << node.shift);
    if (node.shift == 0) return IndexCore::Entry{start, below};
    if (const auto found = next_in(*static_cast<const IndexNode*>(below), start, from)) {
      return found;
    }
  }
  return std::nullopt;
}

/// The first index of `node` at `from` or above that is free.
std::optional<std::uint64_t> free_in(const IndexNode& node, std::uint64_t base,
                                     std::uint64_t from) noexcept {
  const unsigned first = from > base ? static_cast<unsigned>((from - base) >> node.shift) : 0;
  // No index reaches the upper slots of the highest node there can be.
  const std::uint64_t slots = node.shift >= 60 ? 0xFFFF : ~std::uint64_t{0};
  std::uint64_t open = ~node.full & slots & (~std::uint64_t{0} << first);
  for (; open != 0; open &= open - 1) {
    const auto slot = static_cast<unsigned>(std::countr_zero(open));
    const std::uint64_t start = base + (std::uint64_t{slot} << node.shift);
    if (node.shift == 0 || (node.used & bit(slot)) == 0) return std::max(start, from);
    if (const auto found = free_in(*node.child(slot), start, from)) return found;
  }
  return std::nullopt;
}

}  // namespace

IndexCore::~IndexCore() { destroy(root_.load(std::memory_order_relaxed)); }

void IndexCore::destroy(IndexNode* node) noexcept {
  if (node == nullptr) return;
  if (node->shift != 0) {
    for (unsigned slot = 0; slot < IndexNode::kSlots; ++slot) destroy(node->child(slot));
  }
  delete node;
}

void IndexCore::retire(IndexNode& node) noexcept {
  if (planted_fault("rcu-index-map-no-grace")) {
    static char freed;
    for (auto& slot : node.slots) slot.store(node.shift == 0 ? &freed : nullptr);
    return;
  }
  node.retire({}, domain_);
}

std::optional<IndexCore::Entry> IndexCore::next(std::uint64_t from) const noexcept {
  const IndexNode* const root = root_.load(std::memory_order_acquire);  // (A)
  if (root == nullptr || !root->covers(from)) return std::nullopt;
  return next_in(*root, 0, from);
}

bool IndexCore::extend_locked(std::uint64_t index, Path& path) {
  IndexNode* root = root_.load(std::memory_order_relaxed);
  if (root == nullptr) {
    unsigned shift = 0;
    while (index >> shift >= IndexNode::kSlots) shift += IndexNode::kBits;
    root = new (std::nothrow) IndexNode(shift);
    if (root == nullptr) return false;
    root_.store(root, std::memory_order_release);  // (A)
  }
  while (!root->covers(index)) {
    auto* const above = new (std::nothrow) IndexNode(root->shift + IndexNode::kBits);
    if (above == nullptr) return false;
    above->slots[0].store(root, std::memory_order_relaxed);
    above->used = 1;
    above->full = root->full == ~std::uint64_t{0} ? 1 : 0;
    root_.store(above, std::memory_order_release);  // (A)
    root = above;
  }
  for (IndexNode* node = root;;) {
    path.nodes[path.count++] = node;
    if (node->shift == 0) return true;
    const unsigned slot = node->slot_of(index);
    IndexNode* child = node->child(slot);
    if (child == nullptr) {
      child = new (std::nothrow) IndexNode(node->shift - IndexNode::kBits);
      if (child == nullptr) return false;
      node->slots[slot].store(child, std::memory_order_release);  // (A)
      node->used |= bit(slot);
    }
    node = child;
  }
}

/// Takes out the nodes of `path` that have become empty, and roots that only lengthen the way.
void IndexCore::prune_locked(std::uint64_t index, const Path& path, Retired& retired) noexcept {
  for (unsigned depth = path.count; depth-- > 0 && path.nodes[depth]->used == 0;) {
    IndexNode& empty = *path.nodes[depth];
    if (depth == 0) {
      root_.store(nullptr, std::memory_order_release);
    } else {
      IndexNode& above = *path.nodes[depth - 1];
      const unsigned slot = above.slot_of(index);
      above.slots[slot].store(nullptr, std::memory_order_release);
      above.used &= ~bit(slot);
    }
    retired.add(empty);
  }
  IndexNode* root = root_.load(std::memory_order_relaxed);
  while (root != nullptr && root->shift != 0 && root->used == 1) {
    IndexNode& needless = *root;
    root = needless.child(0);
    root_.store(root, std::memory_order_release);  // (A)
    retired.add(needless);
  }
}

Result<void*> IndexCore::store_locked(std::uint64_t index, void* element, Retired& retired) {
  Path path;
  if (!extend_locked(index, path)) {
    prune_locked(index, path, retired);
    return errno_error(ENOMEM);
  }
  IndexNode& leaf = *path.nodes[path.count - 1];
  const unsigned slot = leaf.slot_of(index);
  void* const before = leaf.slots[slot].exchange(element, std::memory_order_acq_rel);  // (A)
  leaf.used |= bit(slot);
  leaf.full = leaf.used;
  for (unsigned depth = path.count - 1; depth > 0; --depth) {
    if (path.nodes[depth]->full != ~std::uint64_t{0}) break;
    path.nodes[depth - 1]->full |= bit(path.nodes[depth - 1]->slot_of(index));
  }
  return before;
}

Result<void*> IndexCore::store(std::uint64_t index, void* element) {
  Retired retired(*this);
  const MutexLock lock(mutex_);
  return store_locked(index, element, retired);
}

void* IndexCore::erase(std::uint64_t index) noexcept {
  Retired retired(*this);
  const MutexLock lock(mutex_);
  IndexNode* node = root_.load(std::memory_order_relaxed);
  if (node == nullptr || !node->covers(index)) return nullptr;
  Path path;
  for (; node->shift != 0; node = node->child(node->slot_of(index))) {
    path.nodes[path.count++] = node;
    if ((node->used & bit(node->slot_of(index))) == 0) return nullptr;
  }
  path.nodes[path.count++] = node;
  const unsigned slot = node->slot_of(index);
  void* const before = node->slots[slot].exchange(nullptr, std::memory_order_acq_rel);
  if (before == nullptr) return nullptr;
  node->used &= ~bit(slot);
  for (unsigned depth = 0; depth < path.count; ++depth) {
    path.nodes[depth]->full &= ~bit(path.nodes[depth]->slot_of(index));
  }
  prune_locked(index, path, retired);
  return before;
}

Result<std::uint64_t> IndexCore::allocate(void* element, std::uint64_t first, std::uint64_t last) {
  Retired retired(*this);
  const MutexLock lock(mutex_);
  std::uint64_t index = first;
  const IndexNode* const root = root_.load(std::memory_order_relaxed);
  if (root != nullptr && root->covers(first)) {
    const auto found = free_in(*root, 0, first);
    if (!found && reach(*root) == ~std::uint64_t{0}) return errno_error(ENOSPC);
    index = found ? *found : reach(*root) + 1;
  }
  if (index > last) return errno_error(ENOSPC);
  const auto stored = store_locked(index, element, retired);
  if (!stored) return Unexpected{stored.error()};
  return index;
}

}  // namespace tandem::rcu::detail
