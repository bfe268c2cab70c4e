// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tandem/base/mapping.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/base/result.hpp"
#include "tandem/wd/detail/generation.hpp"
#include "tandem/wd/detail/ledger.hpp"
#include "tandem/wd/detail/route.hpp"
#include "tandem/wd/transport.hpp"

namespace tandem::wd::detail {

class Context;

/// One transport, the queues on it counted, and the memory reserved through it.
///
/// Thread safety: all calls, from any thread.
class Connection {
 public:
  Connection(Route route, std::unique_ptr<Transport> transport)
      : route_(std::move(route)), transport_(std::move(transport)) {}
  ~Connection();

  const Route& route() const { return route_; }
  Transport& transport() { return *transport_; }

  /// Counts a queue in or out. With the last one goes what was reserved and not released.
  void add_queue();
  void remove_queue();

  /// Memory that engines reach in place: whole pages, 2 MiB-aligned from that size on, not
  /// inherited by fork. Errors: EINVAL for zero bytes; what the transport says; the errno of
  /// mmap().
  Result<std::byte*> reserve(std::uint64_t size_bytes);
  /// Errors: EINVAL when nothing starts at `address`.
  Result<void> release(const void* address);
  /// Whether [address, address + size) lies within one reservation.
  bool is_reserved(std::uint64_t address, std::uint64_t size_bytes);

 private:
  struct Reservation {
    std::uint64_t id = 0;
    Mapping memory;
  };
  Mutex mutex_;
  const Route route_;
  const std::unique_ptr<Transport> transport_;
  std::size_t queues_ TANDEM_GUARDED_BY(mutex_) = 0;
  std::map<std::uint64_t, Reservation> reserved_ TANDEM_GUARDED_BY(mutex_);  // by address
};

/// What the library knows in this process.
///
/// It is found through one atomic pointer, together with the generation word. States, seen by any
/// call: no pointer → the first use makes a Process; word equal to its generation → it is ours;
/// word zero → we are a forked child and make the next generation. A child takes no lock of the old
/// Process, since a thread that does not exist here may hold it, and reads of it only the ledger.
/// The old Process stays allocated for good, chained to the new one.
///
/// Two threads may find the same state: the pointer is exchanged by compare-and-swap, the loser
/// discards its own and waits until the winner has published the word. A fork in between leaves the
/// grandchild with a zero word again, which is right.
///
/// Lock order: Process → Connection → Ledger.
class Process {
 public:
  /// This process's; made when it does not exist yet.
  /// Errors: what GenerationWord::create() says; ENOMEM.
  static Result<Process*> current();

  const GenerationWord& word() const { return *word_; }
  std::uint32_t generation() const { return generation_; }
  Ledger& ledger() { return ledger_; }

  /// The connection along `route`, made when there is none or the last one died.
  /// Errors: ENODEV when it needs the embedded library and that is not linked; see
  ///         connect_to_trusted() and BrokerTransport::create().
  Result<std::shared_ptr<Connection>> connect(const Route& route);

  /// A number for `context`, unique in this process and all its forks' common past.
  std::uint64_t enter_context(const Context* context);
  void leave_context(std::uint64_t serial);
  bool context_lives(std::uint64_t serial);

  // Any thread adds, statistics read.
  std::atomic<std::uint64_t> rebinds{0};  // contexts that a fork made open again
  std::atomic<std::uint64_t> staged{0};   // requests whose operands were copied here

 private:
  Process(GenerationWord* word, std::uint32_t generation, Process* inherited)
      : word_(word), generation_(generation), inherited_(inherited) {}

  GenerationWord* const word_;
  const std::uint32_t generation_;
  [[maybe_unused]] Process* const inherited_;  // keeps it reachable for leak checkers
  Ledger ledger_;
  Mutex mutex_;
  std::vector<std::shared_ptr<Connection>> connections_ TANDEM_GUARDED_BY(mutex_);
  // By serial; in a forked child also what keeps the parent's contexts reachable.
  std::map<std::uint64_t, const Context*> contexts_ TANDEM_GUARDED_BY(mutex_);
};

}  // namespace tandem::wd::detail
