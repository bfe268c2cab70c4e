// SPDX-License-Identifier: Apache-2.0
#include "tandem/wd/detail/reservations.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "tandem/wd/detail/memory.hpp"
#include "tandem/wd/detail/process.hpp"

namespace tandem::wd::detail {
namespace {

// Counts on in a forked child, so that none of its reservations is mistaken for its parent's.
constinit std::atomic<std::uint64_t> last_serial{0};

}  // namespace

Result<std::byte*> Reservations::reserve(const std::shared_ptr<Connection>& connection,
                                         std::uint64_t size_bytes) {
  if (size_bytes == 0 || size_bytes > kUserAddressLimit) return errno_error(EINVAL);
  Transport& transport = connection->transport();
  auto granted = transport.reserve(round_up_to_page(size_bytes));
  if (!granted) return Unexpected{granted.error()};
  auto memory = map_shared(granted->fd.get(), granted->size_bytes);
  if (memory) {
    const auto address = reinterpret_cast<std::uint64_t>(memory->data());
    auto attached = transport.attach(granted->id, address);
    if (attached) {
      std::byte* const data = memory->data();
      const std::uint64_t serial = last_serial.fetch_add(1, std::memory_order_relaxed) + 1;
      const MutexLock lock(mutex_);
      Reservation& entry = table_[address];
      entry.memory.release();  // what stood there was unmapped behind our back
      entry = {serial, connection, granted->id, true, std::move(*memory)};
      version_.fetch_add(1, std::memory_order_release);  // (V)
      return data;
    }
    memory = Unexpected{attached.error()};
  }
  (void)transport.release(granted->id);
  return Unexpected{memory.error()};
}

Result<void> Reservations::release(const void* address) {
  Table::node_type found;
  {
    const MutexLock lock(mutex_);
    found = table_.extract(reinterpret_cast<std::uint64_t>(address));
    version_.fetch_add(1, std::memory_order_release);  // (V)
  }
  if (found.empty()) return errno_error(EINVAL);
  return give_up(std::move(found));
}

/// Returns it to the other side and unmaps it, or puts it back into the table with an error.
Result<void> Reservations::give_up(Table::node_type reservation) {
  const Reservation& it = reservation.mapped();
  if (!it.attached) return {};
  Transport& transport = it.connection->transport();
  auto released = transport.release(it.id);
  if (released || !transport.alive()) return {};
  const MutexLock lock(mutex_);
  table_.insert(std::move(reservation));
  version_.fetch_add(1, std::memory_order_release);  // (V)
  return released;
}

std::uint64_t Reservations::serial_at(const void* address) {
  const MutexLock lock(mutex_);
  const auto found = table_.find(reinterpret_cast<std::uint64_t>(address));
  return found == table_.end() ? 0 : found->second.serial;
}

void Reservations::leave(Connection& connection, const std::shared_ptr<Connection>& heir) {
  std::vector<Table::node_type> left;
  {
    // Counted and taken in one: what a new queue reserves comes later, and stays.
    const MutexLock lock(mutex_);
    if (connection.remove_queue() != 0) return;
    const bool inherited = heir != nullptr && heir->has_queues();
    for (auto at = table_.begin(); at != table_.end();) {
      const auto next = std::next(at);
      if (at->second.connection.get() == &connection) {
        if (inherited) {
          at->second.connection = heir;
          at->second.attached = false;
        } else {
          left.push_back(table_.extract(at));
        }
      }
      at = next;
    }
    version_.fetch_add(1, std::memory_order_release);  // (V)
  }
  for (auto& reservation : left) (void)give_up(std::move(reservation));
}

bool ReservedView::contains(std::uint64_t address, std::uint64_t size_bytes) {
  if (reservations_.version_.load(std::memory_order_acquire) != version_) renew();  // (V)
  const auto next = std::ranges::upper_bound(ranges_, address, {}, &Range::start);
  if (next == ranges_.begin()) return false;
  const Range& range = *std::prev(next);
  const std::uint64_t offset = address - range.start;
  return offset <= range.size_bytes && size_bytes <= range.size_bytes - offset;
}

void ReservedView::renew() {
  const MutexLock lock(reservations_.mutex_);
  ranges_.clear();
  for (const auto& [start, reservation] : reservations_.table_) {
    if (reservation.connection.get() == &connection_ && reservation.attached) {
      ranges_.push_back({start, reservation.memory.size()});
    }
  }
  version_ = reservations_.version_.load(std::memory_order_relaxed);
}

}  // namespace tandem::wd::detail
