// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

#include "tandem/base/mutex.hpp"
#include "tandem/rcu/detail/reader.hpp"

namespace tandem::rcu::detail {

/// First in, first out.
struct NodeList {
  Node* head = nullptr;
  Node* tail = nullptr;

  bool empty() const noexcept { return head == nullptr; }
  void push(Node& node) noexcept;
  Node& pop() noexcept;
};

/// The part of a domain that belongs to one process: readers, grace periods, retired objects.
///
/// A forked child never touches the parent's core, whose locks and lists may be half way through
/// anything; it makes a new one. The domain holds one reference, each attached reader and the
/// worker another, so that a thread may outlive a domain it once used.
struct Core {
  Core(std::atomic<std::uint64_t>& domain_sequence, std::uint64_t process_generation, Core* parents)
      : sequence(domain_sequence), generation(process_generation), parent(parents) {}
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  void acquire() noexcept { references.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept;

  // Readers and grace periods: core.cpp.

  void link(Reader& reader) noexcept TANDEM_EXCLUDES(registry);
  void unlink(Reader& reader) noexcept TANDEM_EXCLUDES(registry);
  /// The lowest state of a reader in a section, at most `bound`.
  std::uint64_t oldest_reader(std::uint64_t bound) noexcept TANDEM_EXCLUDES(registry);
  /// Returns once no reader is in a section with a state below `bound`.
  void wait_for_readers(std::uint64_t bound) noexcept TANDEM_EXCLUDES(registry);
  void sleep_for_readers(std::uint64_t bound) noexcept TANDEM_EXCLUDES(registry);
  void synchronize() noexcept TANDEM_EXCLUDES(grace);
  void wake_all() noexcept;

  // Retired objects: reclaim.cpp.

  void retire(Node& node, bool may_sleep) noexcept;
  /// `limit`: runs everything stamped up to it. Returns at once in the child if a deleter forks.
  void barrier(std::uint64_t limit) noexcept;
  /// Ends the worker. Only without retired objects, readers and other callers.
  void stop_worker() noexcept;

  /// Runs what no reader can hold any more. Returns false in a child that a deleter forked, where
  /// this core must not be touched any more.
  [[nodiscard]] bool reclaim_pass() noexcept TANDEM_REQUIRES(role);
  void collect() noexcept TANDEM_REQUIRES(role);
  bool holds_up_to(std::uint64_t limit) const noexcept TANDEM_REQUIRES(role);
  void notify_worker() noexcept;
  bool start_worker() noexcept;
  void worker_main() noexcept;
  void throttle() noexcept;

  std::atomic<std::uint64_t>& sequence;  // the domain's
  const std::uint64_t generation;
  Core* const parent;  // never used; keeps what the child abandoned reachable for leak checkers
  std::atomic<std::uint32_t> references{1};
  std::atomic<bool> dead{false};        // the domain's destructor sets; threads drop their readers
  std::atomic<std::uint32_t> moved{0};  // futex: a reader that someone waited for has moved

  Mutex registry;
  Reader* readers TANDEM_GUARDED_BY(registry) = nullptr;

  Mutex grace;  // one grace period at a time; who waits for it shares its result
  std::uint64_t completed TANDEM_GUARDED_BY(grace) = 0;  // no reader below it is left

  alignas(kCacheLine) std::atomic<Node*> incoming{nullptr};  // retire() pushes, collect() takes
  std::atomic<std::uint64_t> queued{0};                      // retired and not yet deleted
  std::atomic<std::uint32_t> work{1};                        // futex: 0 while the worker is idle
  std::atomic<std::uint32_t> hurry{0};      // futex: counts reasons to end the worker's pause
  std::atomic<std::uint32_t> drained{0};    // futex: counts passes, for throttled threads
  std::atomic<std::uint32_t> throttled{0};  // threads that sleep on `drained`
  std::atomic<std::uint32_t> worker{0};     // futex: a WorkerState
  std::atomic<bool> stop{false};            // stop_worker() sets, the worker reads

  Mutex role;                                // of the thread that runs deleters
  NodeList pending TANDEM_GUARDED_BY(role);  // readers may hold them
  NodeList ready TANDEM_GUARDED_BY(role);    // no reader holds them
};

}  // namespace tandem::rcu::detail
