// SPDX-License-Identifier: Apache-2.0
/// How the client library reaches a device framework: over a broker's socket, or by direct call
/// when the embedded library is linked. Private to Tandem's own libraries.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tandem/abi/control.h"
#include "tandem/base/result.hpp"
#include "tandem/base/unique_fd.hpp"

namespace tandem::wd {

/// One connection: this address space at one framework. Thread safety: all calls, from any thread,
/// except in a forked child, which never touches its parent's, not even to destroy it. Errors are
/// errno values; ESHUTDOWN, EPIPE and ECONNRESET mean that the other side is gone.
class Transport {
 public:
  virtual ~Transport() = default;

  virtual Result<tandem_open_reply> open(const std::string& algorithm, std::uint32_t depth) = 0;
  virtual Result<UniqueFd> map(std::uint32_t queue, std::uint32_t region, std::uint64_t size) = 0;
  virtual Result<void> start(std::uint32_t queue) = 0;
  virtual Result<void> put(std::uint32_t queue) = 0;
  virtual Result<void> hold(std::uint32_t queue, bool keep_awake) = 0;
  virtual Result<UniqueFd> event(std::uint32_t queue) = 0;
  struct Reserved {
    std::uint64_t id;
    std::uint64_t size_bytes;
    UniqueFd fd;
  };
  virtual Result<Reserved> reserve(std::uint64_t size_bytes) = 0;
  virtual Result<void> attach(std::uint64_t id, std::uint64_t address) = 0;
  virtual Result<void> release(std::uint64_t id) = 0;
  virtual Result<std::vector<tandem_devices_reply>> devices() = 0;
  virtual Result<tandem_stats_reply> stats() = 0;

  /// Gets a parked engine back. Async-signal-safe.
  virtual void wake() noexcept = 0;
  /// Runs pending requests of `queue` on this thread, when the framework has no threads of its own.
  virtual bool runs_in_caller() const noexcept { return false; }
  virtual void run_in_caller(std::uint32_t /*queue*/) noexcept {}
  /// Whether ordinary pointers reach the device; false: only reserved memory (the rest is staged).
  virtual bool reaches_ordinary_memory() const noexcept = 0;
  /// Whether the other side still answers. May make a system call.
  virtual bool alive() noexcept = 0;
  /// A descriptor that polls as hung up when the other side goes away; −1: it cannot go away.
  virtual int hangup_descriptor() const noexcept { return -1; }
};

/// Makes the embedded transport; `in_caller`: no engine threads.
using EmbeddedFactory = Result<std::unique_ptr<Transport>> (*)(bool in_caller);

/// Called by the embedded library when it is loaded.
extern "C" void wd_register_embedded(EmbeddedFactory factory) noexcept;

}  // namespace tandem::wd
