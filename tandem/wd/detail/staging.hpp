// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "tandem/abi/ring.h"
#include "tandem/wd/detail/process.hpp"
#include "tandem/wd/wd.h"

namespace tandem::wd::detail {

/// A piece of reserved memory on loan from a StagingPool.
struct StagingBuffer {
  std::byte* data = nullptr;
  std::size_t size_bytes = 0;
};

/// Reserved memory of one queue for copies of operands that its engine may not reach; grows on
/// demand, shrinks at the end. Thread safety: none, as its queue.
class StagingPool {
 public:
  StagingPool(Reservations& reservations, std::shared_ptr<Connection> connection)
      : reservations_(reservations), connection_(std::move(connection)) {}
  StagingPool(const StagingPool&) = delete;
  StagingPool& operator=(const StagingPool&) = delete;
  ~StagingPool() { clear(); }

  /// Errors: what Reservations::reserve() says.
  Result<StagingBuffer> take(std::size_t size_bytes);
  void give_back(StagingBuffer buffer);
  /// Releases everything, on loan or not. To be called while the queue still counts: with the last
  /// queue its connection's memory goes, and the addresses may become somebody else's.
  void clear();

 private:
  Reservations& reservations_;
  const std::shared_ptr<Connection> connection_;
  std::vector<StagingBuffer> all_;
  std::vector<StagingBuffer> free_;
};

/// One request whose operands stand in reserved memory instead of where the user has them.
///
/// start() copies in, finish() copies out and turns addresses back into the user's. What the user's
/// memory refuses on the way becomes the request's FAULT, as if the engine had met it: at the same
/// address, with the bytes that were done before.
class StagedRequest {
 public:
  /// Whether [address, address + size) is something an engine could be asked for at all: if not,
  /// the engine shall say so itself.
  static bool sensible(std::uint64_t address, std::uint64_t size_bytes);

  /// Takes a buffer and copies operands in. Operands in reserved memory stay where they are.
  /// Errors: what StagingPool::take() says.
  static Result<StagedRequest> start(const wd_request& request, ReservedView& reserved,
                                     StagingPool& pool);

  /// When an operand could not even be read: fills in the results; nothing is to be sent.
  bool failed() const { return failed_; }
  void fill_failure(wd_request& request) const;

  /// What to send instead of the request of the user.
  wd_request redirected(wd_request request) const;
  /// Turns the engine's completion into the user's: copies out, maps addresses back.
  void finish(const wd_request& request, tandem_completion& completion) const;

  StagingBuffer buffer() const { return buffer_; }

 private:
  struct Operand {
    std::uint64_t user = 0;
    std::byte* copy = nullptr;  // nullptr: not staged
    std::uint32_t length = 0;
  };
  void copy_in(const Operand& operand, std::uint16_t opcode);
  static bool map_back(const Operand& operand, std::uint64_t& address);

  StagingBuffer buffer_;
  Operand src_, dst_;
  // Where the user's memory ended while copying in.
  bool faulted_ = false;
  bool failed_ = false;  // … and nothing can be run on what came before
  std::uint64_t fault_address_ = 0;
  std::uint32_t readable_ = 0;  // bytes before it
};

}  // namespace tandem::wd::detail
