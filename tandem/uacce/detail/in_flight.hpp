// SPDX-License-Identifier: Apache-2.0
/// Which accesses to a process's memory are running, and since when.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <utility>

#include "tandem/abi/ring.h"

namespace tandem::uacce::detail {

/// Thread safety: any thread.
///
/// Closing: (A) enter() takes its slot, then looks at `closed_`; (B) close() sets it, then
/// wait_idle() looks at the slots. All four are seq_cst, so either the entrant sees that it is
/// closed or the closer sees the entrant.
class InFlight {
 public:
  class Scope {
   public:
    Scope(Scope&& other) noexcept : slot_(std::exchange(other.slot_, nullptr)) {}
    Scope& operator=(Scope&&) = delete;
    ~Scope();
    /// Whether the access may go on.
    explicit operator bool() const { return slot_ != nullptr; }

   private:
    friend class InFlight;
    explicit Scope(std::atomic<std::int64_t>* slot) : slot_(slot) {}
    std::atomic<std::int64_t>* slot_;
  };

  /// While it lives, the calling thread's accesses are those of an operation of the queue whose
  /// Queue::death() this is.
  class Operation {
   public:
    explicit Operation(const std::atomic<std::uint32_t>& death) { current_ = &death; }
    Operation(const Operation&) = delete;
    Operation& operator=(const Operation&) = delete;
    ~Operation() { current_ = nullptr; }

   private:
    friend class InFlight;
    static constinit inline thread_local const std::atomic<std::uint32_t>* current_ = nullptr;
  };
  /// Whether the calling thread's operation has lost its queue. What it still does is for nobody.
  static bool cancelled() {
    return Operation::current_ != nullptr &&
           Operation::current_->load(std::memory_order_acquire) != TANDEM_QUEUE_ALIVE;
  }

  /// Counts an access until the scope ends. False after close(), when the operation is cancelled(),
  /// or when as many accesses run as there are slots.
  Scope enter();
  void close();
  /// Whether some access has been running for longer than `age`, give or take a clock tick.
  bool older_than(std::chrono::milliseconds age) const;
  /// Returns: false when an access still ran at the end of `timeout`.
  bool wait_idle(std::chrono::milliseconds timeout) const;

 private:
  bool idle() const;

  static constexpr std::size_t kSlots = 128;                 // more than there are engine threads
  std::array<std::atomic<std::int64_t>, kSlots> started_{};  // coarse nanoseconds; 0: free
  std::atomic<bool> closed_{false};
};

}  // namespace tandem::uacce::detail
