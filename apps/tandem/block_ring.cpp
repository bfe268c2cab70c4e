// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/block_ring.hpp"

#include <bit>

namespace tandem::cli {
namespace {

/// While we work on a block, or read and write, an engine must not run dry.
constexpr unsigned kEnough = 2;

}  // namespace

Result<BlockRing, Failure> BlockRing::open(unsigned queues, unsigned blocks, std::size_t in_bytes,
                                           std::size_t out_bytes) {
  BlockRing ring;
  for (unsigned i = 0; i < queues; ++i) {
    auto queue = Queue::open("gzip", std::bit_ceil(blocks));
    if (!queue) return Unexpected{from_wd("opening the compression device", queue.error())};
    ring.queues_.push_back(std::move(*queue));
  }
  ring.enough_ = blocks;
  if (ring.first_queue().path() == WD_PATH_EMBEDDED) {
    if (auto own = Queue::open("gzip", 2, WD_PATH_INLINE)) {
      ring.own_ = std::move(*own);
      ring.enough_ = kEnough;
    }
  }
  const auto rounded = [](std::size_t bytes) { return (bytes + 4095) & ~std::size_t{4095}; };
  const std::span<std::byte> memory =
      ring.allocate(blocks * (rounded(in_bytes) + rounded(out_bytes)));
  std::size_t used = 0;
  for (unsigned i = 0; i < blocks; ++i) {
    Block block;
    block.in = memory.subspan(used, in_bytes);
    used += rounded(in_bytes);
    block.out = memory.subspan(used, out_bytes);
    used += rounded(out_bytes);
    ring.blocks_.push_back(block);
  }
  return ring;
}

/// The queue with the least to do; our own when all have enough.
Queue* BlockRing::choose() {
  Queue* least = queues_.front().get();
  for (const auto& queue : queues_) {
    if (wd_in_flight(queue->raw()) < wd_in_flight(least->raw())) least = queue.get();
  }
  return own_ != nullptr && wd_in_flight(least->raw()) >= enough_ ? own_.get() : least;
}

std::span<std::byte> BlockRing::allocate(std::size_t size) {
  const std::span<std::byte> reserved = first_queue().reserve(size);
  if (!reserved.empty()) return reserved;
  ordinary_.push_back(std::make_unique<std::byte[]>(size));
  return {ordinary_.back().get(), size};
}

BlockRing::Block* BlockRing::next_free() {
  if (sent_ - released_ == blocks_.size()) return nullptr;
  return &blocks_[sent_ % blocks_.size()];
}

std::optional<Failure> BlockRing::send(Block& block) {
  block.queue = choose();
  if (const int error = wd_send(block.queue->raw(), &block.request); error < 0) {
    return from_wd("compression device", error);
  }
  ++sent_;
  if (block.queue == own_.get()) {
    wd_request* done = nullptr;
    if (const int error = wd_recv_sync(own_->raw(), &done); error < 0) {
      return from_wd("compression device", error);
    }
  }
  return std::nullopt;
}

Result<BlockRing::Block*, Failure> BlockRing::oldest() {
  if (sent_ == released_) return nullptr;
  Block& block = blocks_[released_ % blocks_.size()];
  if (block.queue == own_.get()) return &block;
  wd_request* done = nullptr;
  // Each queue completes in order, and what was sent there before has been received: it is this
  // one.
  if (const int error = wd_recv_sync(block.queue->raw(), &done); error < 0) {
    return Unexpected{from_wd("compression device", error)};
  }
  if (done != &block.request) {
    return Unexpected{Failure{kFailure, "compression device: a completion came out of order"}};
  }
  return &block;
}

void BlockRing::release(const Block&) { ++released_; }

Failure from_status(std::string_view what, const wd_request& request) {
  switch (request.status) {
    case TANDEM_STATUS_CORRUPT_INPUT:
      return {kFailure, fmt::format("{}: the compressed data is damaged", what)};
    case TANDEM_STATUS_TRUNCATED_INPUT:
      return {kFailure, fmt::format("{}: unexpected end of the compressed data", what)};
    case TANDEM_STATUS_DEVICE_LOST:
      return {kBrokerUnreachable, fmt::format("{}: the device went away; try again", what)};
    case TANDEM_STATUS_FAULT:
      return {kFailure, fmt::format("{}: fault at {:#x}", what, request.fault_address)};
    default:
      return {kFailure, fmt::format("{}: {}", what, wd_strstatus(request.status))};
  }
}

}  // namespace tandem::cli
