// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "apps/tandem/cli.hpp"
#include "apps/tandem/queue.hpp"

namespace tandem::cli {

/// Blocks that go to the compression device over several queues and come back in order.
///
/// Where the device runs in this process, half the cores are engines': when those have enough to
/// do, send() works on a block itself, over one more queue that runs in the caller.
///
/// Input and output of every block lie in reserved memory (zero copy), or in ordinary memory when
/// none is to be had. Memory is constant: blocks × (input + output).
class BlockRing {
 public:
  struct Block {
    wd_request request{};
    std::span<std::byte> in, out;
    std::size_t in_size = 0;  ///< bytes of `in` in use; the caller's
    Queue* queue = nullptr;   ///< where it was sent
  };

  /// `blocks` in all, spread over `queues`.
  static Result<BlockRing, Failure> open(unsigned queues, unsigned blocks, std::size_t in_bytes,
                                         std::size_t out_bytes);

  /// The next block to fill, or nullptr while all are in flight.
  Block* next_free();
  /// Sends the block that next_free() gave.
  std::optional<Failure> send(Block& block);
  /// Waits for the block that was sent first; nullptr when none is in flight.
  Result<Block*, Failure> oldest();
  bool in_flight() const { return sent_ != released_; }
  /// Gives the block that oldest() returned back.
  void release(const Block& block);

  /// A queue of the ring, for other use while nothing is in flight.
  Queue& first_queue() { return *queues_.front(); }
  /// `size` bytes that the device reaches like the blocks.
  std::span<std::byte> allocate(std::size_t size);
  bool zero_copy() const { return ordinary_.empty(); }

 private:
  Queue* choose();
  std::vector<std::unique_ptr<Queue>> queues_;
  std::unique_ptr<Queue> own_;  // runs in the caller; none where the device is elsewhere
  unsigned enough_ = 0;         // blocks in flight at which a queue has enough to do
  std::vector<std::unique_ptr<std::byte[]>> ordinary_;
  std::vector<Block> blocks_;
  std::uint64_t sent_ = 0, released_ = 0;
};

/// The failure for a status that a request should not have come back with.
Failure from_status(std::string_view what, const wd_request& request);

}  // namespace tandem::cli
