// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <vector>

#include "tandem/base/cpu.hpp"
#include "tandem/kxo/detail/search_node.hpp"

namespace tandem::kxo::detail {

/// Memory for the nodes of a tree, in blocks of siblings. Threads cut blocks from slabs of their
/// own, and take a new slab with one addition: none waits for another. Single blocks are not freed:
/// all are at once, or all but those that were copied.
///
/// Thread safety: allocate(), undo() and block() on any thread, with a Cursor that no other one
/// uses; the rest, while nobody else does anything.
class NodeStore {
 public:
  /// Where a thread's next block comes from.
  struct Cursor {
    std::uint32_t next = 0, end = 0;  // names
  };

  /// Room for `most_nodes`, in slabs for so many threads; at least for one block of `largest`.
  NodeStore(std::size_t most_nodes, std::size_t threads, std::size_t largest);

  /// Memory for a block of nodes, to be made. Nothing when there is no more room, or no memory.
  std::optional<std::uint32_t> allocate(Cursor& cursor, unsigned nodes) noexcept;
  /// Takes back the block that `cursor` gave last, which nobody has heard of.
  static void undo(Cursor& cursor, unsigned nodes) noexcept { cursor.next -= rounded(nodes); }
  Block block(std::uint32_t name, unsigned nodes) const noexcept {
    std::byte* const at = slabs_[name / kMostSlabNodes].get() +
                          static_cast<std::size_t>(name % kMostSlabNodes) * kNodeBytes;
    return {reinterpret_cast<Statistics*>(at),
            reinterpret_cast<std::atomic<Link>*>(at + rounded(nodes) * sizeof(Statistics))};
  }

  /// Frees all blocks. The memory is kept for those that come.
  void clear() noexcept { used_.store(0, std::memory_order_relaxed); }
  /// Whether slabs are scarce: half of them are used.
  bool crowded() const noexcept { return used() * 2 > most_slabs_; }
  /// What is allocated after begin_copy() has room as if nothing had been before; end_copy() frees
  /// what was. Cursors from before each of them are void.
  void begin_copy() noexcept;
  void end_copy() noexcept;

 private:
  static constexpr std::uint32_t kMostSlabNodes = 4096;
  static constexpr std::size_t kNodeBytes = sizeof(Statistics) + sizeof(std::atomic<Link>);

  struct Free {
    void operator()(std::byte* slab) const noexcept { std::free(slab); }
  };

  /// Keeps statistics from lying across two cache lines.
  static constexpr std::uint32_t rounded(unsigned nodes) noexcept { return (nodes + 1) & ~1U; }
  bool take_slab(Cursor& cursor) noexcept;
  std::uint32_t used() const noexcept;

  std::uint32_t most_slabs_, slab_nodes_;
  std::vector<std::unique_ptr<std::byte[], Free>> slabs_;  // whose taker makes them
  std::vector<std::uint32_t> order_;                       // the first `used_` of them are used
  std::uint32_t limit_, copying_from_ = 0;
  // On a line of its own: all else here is read on each way down a tree.
  alignas(kCacheLine) std::atomic<std::uint32_t> used_{
      0};  // and more, where a thread found no room
};

}  // namespace tandem::kxo::detail
