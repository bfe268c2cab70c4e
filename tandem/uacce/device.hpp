// SPDX-License-Identifier: Apache-2.0
/// What the author of an engine writes.
///
/// An Engine describes a device and makes Workers; a Worker executes one operation at a time. The
/// framework copies each descriptor out of the shared ring first, so a Worker sees it once and
/// unchanging; everything else it reaches through the pcie::AddressSpace of the operation, which is
/// the only way to memory.
///
/// Framework::add_device() puts an Engine into a framework of the author's own (examples/device);
/// clients of wd::open() reach it where the broker or the embedded library adds it, in their
/// sources. Nothing is loaded at run time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tandem/abi/ring.h"
#include "tandem/pcie/pcie.hpp"

namespace tandem::uacce {

/// What a device tells about itself.
struct DeviceTraits {
  /// Names, of 1 to 31 bytes each: printable ASCII without spaces. "comp-0", "tandem_comp_v1".
  std::string name, api;
  /// What clients ask for: "gzip". At least one; the same rules for each, and with a byte between
  /// two at most 383 bytes together.
  std::vector<std::string> algorithms;
  /// Queues at once, of all clients, at least 1. Beyond: Client::open() says EMFILE.
  std::uint32_t queues_max = 1024;
  /// Whether operations reach a client's ordinary memory. If not, reserved memory alone (the client
  /// library stages the rest), and the device serves one client at a time: EBUSY for others.
  bool sva = true;
  /// Small operations that succeed in place take about as long as their bytes say, so that the
  /// scheduler need not look at the clock for them.
  bool quick = false;
};

/// What an operation came to; becomes the completion.
struct Completion {
  tandem_status status = TANDEM_STATUS_OK;
  std::uint32_t done = 0;  ///< bytes written (without output: read) before the end or the fault
  std::uint64_t result = 0;
  std::uint64_t fault_address = 0;  ///< with FAULT: what could not be accessed
  bool stream_end = false;          ///< becomes TANDEM_CPL_STREAM_END
  /// Operand bytes worked on in place, and those that went through a copy: also of operations that
  /// failed, as far as they got.
  std::uint64_t bytes_zero_copy = 0, bytes_copied = 0;

  /// The completion of an operation that a DMA fault ended, `done` bytes after its start.
  /// kWraps becomes BAD_RANGE; every other reason FAULT.
  static Completion from_fault(const pcie::DmaFault& fault, std::uint32_t done);
};

/// State that operations of one queue share (a stream). Used by one worker at a time.
class Session {
 public:
  virtual ~Session() = default;
  /// The queue died. When this returns, threads of the engine's own use the queue's address space
  /// no more: the PASID may be another process's soon.
  ///
  /// Thread safety: from any thread, perhaps several at once and more than once, and beside an
  ///                operation that hangs; with locks of the framework held, so it calls nothing of
  ///                the framework. Must not wait for anything but short critical sections.
  virtual void stop() noexcept {}
};

/// Executes operations; each engine thread has its own, so it may keep scratch buffers. Without
/// engine threads each queue has its own.
///
/// Thread safety: one call at a time; with engine threads from one thread only, else from callers'.
class Worker {
 public:
  virtual ~Worker() = default;
  /// Runs `descriptor` to its end. `session` is what make_session() returned for the queue.
  ///
  /// Reserved words, and that opcode belongs to the device, are checked here: UNKNOWN_OPCODE or
  /// BAD_DESCRIPTOR are ordinary completions. An exception (memory ran out) completes the operation
  /// with FAULT at address 0; the worker and the session are used again afterwards.
  virtual Completion execute(const tandem_descriptor& descriptor, const pcie::AddressSpace& space,
                             Session* session) = 0;
};

/// A device. Destroyed when it has been removed and its last queue and worker are gone.
///
/// Thread safety: several threads make workers and sessions at once, beside running operations.
class Engine {
 public:
  virtual ~Engine() = default;
  /// Asked once, by Framework::add_device().
  virtual DeviceTraits traits() const = 0;
  /// Called by the thread that will use it, before the first operation it runs here.
  /// May throw: as Worker::execute().
  virtual std::unique_ptr<Worker> make_worker() = 0;
  /// State for a new queue, or nullptr when operations share none. Called in Client::open(), by its
  /// caller. std::bad_alloc: no queue then, ENOMEM.
  virtual std::unique_ptr<Session> make_session() { return nullptr; }
  /// The same for an engine that accounts to tenants: `tenant` is whose queue it is.
  virtual std::unique_ptr<Session> make_session_for([[maybe_unused]] std::uint32_t tenant) {
    return make_session();
  }
};

/// An input operand, in place when the memory allows it and `snapshot` is false, else copied.
///
/// An engine that reads its input once may work in place. One that reads it again (most codecs)
/// asks for a snapshot unless it tolerates bytes that change under it.
class Input {
 public:
  /// A copy lies in `scratch`, which only grows; pass it again for the next operation.
  /// Errors: the fault; `fault.address - address` bytes before it were readable. kMemory also when
  ///         the host has no memory left for the copy.
  static Result<Input, pcie::DmaFault> fetch(const pcie::AddressSpace& space, std::uint64_t address,
                                             std::size_t length, bool snapshot,
                                             std::vector<std::byte>& scratch);
  std::span<const std::byte> bytes() const { return bytes_; }
  bool in_place() const { return in_place_; }

 private:
  pcie::Window window_;
  std::span<const std::byte> bytes_;
  bool in_place_ = false;
};

/// An output operand: in place when allowed, else a scratch buffer that commit() copies out.
class Output {
 public:
  /// In place, a fault shows here; with a scratch buffer nothing is checked before commit(), whose
  /// result then says what could be written. Memory that needs a page request is not mapped while
  /// the input is in place: it is copied, and is at hand for the next operation. `space` must
  /// outlive the output. Bytes of a scratch
  /// buffer start out unspecified (an earlier operation's, perhaps another client's): commit only
  /// what was written.
  static Result<Output, pcie::DmaFault> prepare(const pcie::AddressSpace& space,
                                                std::uint64_t address, std::size_t length,
                                                bool in_place_allowed,
                                                std::vector<std::byte>& scratch);
  std::span<std::byte> bytes() const { return bytes_; }
  bool in_place() const { return in_place_; }
  /// Makes the first `length` bytes visible to the client. `used` is the operation's input, or {}:
  /// it ends first, because a thread that holds a window cannot have pages faulted in.
  pcie::DmaResult commit(std::size_t length, Input used);

 private:
  const pcie::AddressSpace* space_ = nullptr;
  std::uint64_t address_ = 0;
  pcie::Window window_;
  std::span<std::byte> bytes_;
  bool in_place_ = false;
};

}  // namespace tandem::uacce
