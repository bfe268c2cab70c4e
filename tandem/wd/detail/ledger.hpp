// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "tandem/base/mutex.hpp"
#include "tandem/base/unique_fd.hpp"

namespace tandem::wd::detail {

/// Which open file a descriptor number stands for, so that a later look can tell whether it still
/// does.
///
/// Sockets and memfds have an inode of their own. Descriptors of the anonymous inode (eventfd,
/// epoll) share one; what identifies them is in their fdinfo (eventfd-id, the epoll targets).
struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t anonymous = 0;  // hash of the identifying fdinfo lines; 0: has an inode of its own
  bool known = false;           // false: could not be told; equal to nothing

  static FileIdentity of(int fd) noexcept;
  bool same_as(const FileIdentity& other) const noexcept;
};

/// The descriptors that the library holds open, for a forked child to close.
///
/// A child closes those numbers that are still the inherited files: the program may have closed
/// ours and got the same number for something of its own.
///
/// Thread safety: add() and close() from any thread. close_inherited() is the child's, alone, on
///                its parent's ledger: it takes no lock, since another thread of the parent may
///                have held it when the child was forked.
/// Ordering: (A) a slot's number is stored with release after its identity; pairs with (B) in
///           close_inherited(), so that a slot is seen whole or not at all. A fork is a snapshot of
///           one instant, in which every store before a visible one is visible too.
class Ledger {
 public:
  Ledger() = default;
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;
  ~Ledger();

  /// Enters `fd`, which the ledger owns from now on. Returns: the number.
  int add(UniqueFd fd);
  /// Closes a descriptor that add() returned; −1 is fine.
  void close(int fd) noexcept;
  void close_inherited() noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS;

 private:
  struct Slot {
    std::atomic<int> fd{-1};
    FileIdentity identity;
  };
  struct Chunk {
    std::array<Slot, 64> slots;
    std::atomic<Chunk*> next{nullptr};  // set once
  };
  Slot& free_slot_locked() TANDEM_REQUIRES(mutex_);

  Mutex mutex_;
  Chunk first_;
};

}  // namespace tandem::wd::detail
