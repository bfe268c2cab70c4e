// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "tandem/base/mapping.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/base/result.hpp"

namespace tandem::wd::detail {

class Connection;

/// The memory that this process has reserved: whole pages, 2 MiB-aligned from that size on, not
/// inherited by fork.
///
/// A reservation belongs to a connection, whose engines reach it in place, and goes when it is
/// released or when the connection's last queue goes. When the other side has died it outlives the
/// connection: a newer connection along the same route inherits it. Engines then reach it as they
/// reach any memory of this process, since what they attached has died with the old broker.
///
/// Thread safety: all calls, from any thread. No call holds the lock while it waits for a broker.
class Reservations {
 public:
  /// Errors: EINVAL for zero bytes; what the transport says; the errno of mmap().
  Result<std::byte*> reserve(const std::shared_ptr<Connection>& connection,
                             std::uint64_t size_bytes);
  /// First the device, then the mapping: after munmap() the addresses may be somebody else's.
  /// Errors: EINVAL when nothing that starts at `address` is reserved; the broker's, with the
  ///         memory still reserved.
  Result<void> release(const void* address);
  /// Which reservation starts at `address`, or 0. Unique in this process and all its forks' common
  /// past.
  std::uint64_t serial_at(const void* address);

  /// Counts a queue of `connection` out. With the last one go its reservations, or `heir` gets them
  /// if there is one and it has queues.
  void leave(Connection& connection, const std::shared_ptr<Connection>& heir);

 private:
  friend class ReservedView;
  struct Reservation {
    std::uint64_t serial = 0;
    std::shared_ptr<Connection> connection;
    std::uint64_t id = 0;
    bool attached = true;  // false: an inherited one, unknown at the other side
    Mapping memory;
  };
  using Table = std::map<std::uint64_t, Reservation>;  // by address
  Result<void> give_up(Table::node_type reservation) TANDEM_EXCLUDES(mutex_);

  Mutex mutex_;
  Table table_ TANDEM_GUARDED_BY(mutex_);
  // Changes with the table, under the mutex; a view compares it with what it has copied.
  std::atomic<std::uint64_t> version_{0};
};

/// What engines of one connection reach in place, as one thread sees it: a copy of the table that
/// is renewed when the table has changed. Else contains() takes no lock.
///
/// Ordering: (V) the version is stored with release after the table; pairs with the acquire load in
///           contains(). Who learned of an address from the thread that reserved it sees the new
///           version with it.
/// Thread safety: none, as the queue it belongs to.
class ReservedView {
 public:
  ReservedView(Reservations& reservations, const Connection& connection)
      : reservations_(reservations), connection_(connection) {}

  /// Whether [address, address + size) lies within one reservation.
  bool contains(std::uint64_t address, std::uint64_t size_bytes);

 private:
  void renew();

  struct Range {
    std::uint64_t start = 0;
    std::uint64_t size_bytes = 0;
  };
  Reservations& reservations_;
  const Connection& connection_;
  std::uint64_t version_ = 0;
  std::vector<Range> ranges_;  // by address
};

}  // namespace tandem::wd::detail
