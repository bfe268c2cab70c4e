// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/detail/node_store.hpp"

#include <algorithm>
#include <numeric>

#include "tandem/base/cpu.hpp"

namespace tandem::kxo::detail {
namespace {

constexpr std::size_t kSlabsPerThread = 4;  // at least, so that a thread's rest is no great waste

std::size_t quotient_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

}  // namespace

NodeStore::NodeStore(std::size_t most_nodes, std::size_t threads, std::size_t largest) {
  std::size_t slabs = quotient_up(most_nodes, kMostSlabNodes);
  if (threads > 1) slabs = std::max(slabs, threads * kSlabsPerThread);
  slabs = std::clamp<std::size_t>(most_nodes / rounded(static_cast<unsigned>(largest)), 1, slabs);
  most_slabs_ = static_cast<std::uint32_t>(slabs);
  const auto nodes = static_cast<unsigned>(std::max(quotient_up(most_nodes, slabs), largest));
  slab_nodes_ = std::min(rounded(nodes), kMostSlabNodes);
  limit_ = most_slabs_;
  slabs_.resize(2 * slabs);
  order_.resize(2 * slabs);
  std::iota(order_.begin(), order_.end(), 0);
}

std::optional<std::uint32_t> NodeStore::allocate(Cursor& cursor, unsigned nodes) noexcept {
  const std::uint32_t size = rounded(nodes);
  if (cursor.end - cursor.next < size && !take_slab(cursor)) return std::nullopt;
  const std::uint32_t name = cursor.next;
  cursor.next += size;
  return name;
}

/// A thread that finds no room leaves its cursor as it is: a smaller block may still fit.
bool NodeStore::take_slab(Cursor& cursor) noexcept {
  if (used_.load(std::memory_order_relaxed) >= limit_) return false;
  const std::uint32_t place = used_.fetch_add(1, std::memory_order_relaxed);
  if (place >= limit_) return false;
  const std::uint32_t slab = order_[place];
  if (slabs_[slab] == nullptr) {
    const std::size_t bytes = slab_nodes_ * kNodeBytes;
    slabs_[slab].reset(static_cast<std::byte*>(
        std::aligned_alloc(kCacheLine, quotient_up(bytes, kCacheLine) * kCacheLine)));
    if (slabs_[slab] == nullptr) return false;
  }
  cursor.next = slab * kMostSlabNodes;
  cursor.end = cursor.next + slab_nodes_;
  return true;
}

std::uint32_t NodeStore::used() const noexcept {
  return std::min(used_.load(std::memory_order_relaxed), limit_);
}

void NodeStore::begin_copy() noexcept {
  copying_from_ = used();
  used_.store(copying_from_, std::memory_order_relaxed);
  limit_ = copying_from_ + most_slabs_;
}

void NodeStore::end_copy() noexcept {
  const std::uint32_t end = used();
  std::rotate(order_.begin(), order_.begin() + copying_from_, order_.begin() + end);
  used_.store(end - copying_from_, std::memory_order_relaxed);
  limit_ = most_slabs_;
}

}  // namespace tandem::kxo::detail
