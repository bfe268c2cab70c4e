// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tandem/base/mutex.hpp"
#include "tandem/base/result.hpp"
#include "tandem/wd/detail/generation.hpp"
#include "tandem/wd/detail/ledger.hpp"
#include "tandem/wd/detail/reservations.hpp"
#include "tandem/wd/detail/route.hpp"
#include "tandem/wd/transport.hpp"

namespace tandem::wd::detail {

class Context;

/// One transport, and the queues on it counted.
///
/// Thread safety: all calls, from any thread.
class Connection {
 public:
  Connection(Route route, std::unique_ptr<Transport> transport)
      : route_(std::move(route)), transport_(std::move(transport)) {}

  const Route& route() const { return route_; }
  Transport& transport() { return *transport_; }

  void add_queue() { queues_.fetch_add(1, std::memory_order_relaxed); }
  /// Returns how many are left. Reservations::leave() calls it.
  std::size_t remove_queue() { return queues_.fetch_sub(1, std::memory_order_relaxed) - 1; }
  bool has_queues() const { return queues_.load(std::memory_order_relaxed) != 0; }

 private:
  const Route route_;
  const std::unique_ptr<Transport> transport_;
  std::atomic<std::size_t> queues_{0};  // any thread counts in; out, the lock of Reservations held
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
/// Lock order: Process → Ledger. Reservations takes none of the others' locks.
class Process {
 public:
  /// This process's; made when it does not exist yet.
  /// Errors: what GenerationWord::create() says; ENOMEM.
  static Result<Process*> current();
  /// This process's, or nullptr when it has none yet: then nothing here is its own.
  /// Async-signal-safe.
  static Process* existing() noexcept;

  const GenerationWord& word() const { return *word_; }
  std::uint32_t generation() const { return generation_; }
  Ledger& ledger() { return ledger_; }
  Reservations& reservations() { return reservations_; }

  /// The connection along `route`, made when there is none or the last one died.
  /// Errors: ENODEV when it needs the embedded library and that is not linked; see
  ///         connect_to_trusted() and BrokerTransport::create().
  Result<std::shared_ptr<Connection>> connect(const Route& route);
  /// Counts a queue of `connection` out. When it was the last and the other side has died, a newer
  /// connection along the same route takes over what was reserved.
  void leave(Connection& connection);

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
  Reservations reservations_;
  Mutex mutex_;
  std::vector<std::shared_ptr<Connection>> connections_ TANDEM_GUARDED_BY(mutex_);
  // By serial; in a forked child also what keeps the parent's contexts reachable.
  std::map<std::uint64_t, const Context*> contexts_ TANDEM_GUARDED_BY(mutex_);
};

}  // namespace tandem::wd::detail
