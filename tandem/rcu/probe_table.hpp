// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "tandem/base/check.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/base/result.hpp"
#include "tandem/rcu/callback_head.hpp"

namespace tandem::rcu {

/// A function that a probe site calls, with what it was attached with and the site's two words.
/// Under tasks_rude_domain it keeps that domain's rules for regions.
struct probe_handler {
  void (*call)(void* context, std::uint64_t a, std::uint64_t b) = nullptr;
  void* context = nullptr;
  friend bool operator==(const probe_handler&, const probe_handler&) = default;
};

/// Dispatches trace probes to handlers that are attached and detached while threads run through it.
///
/// A probe site loads one pointer to an immutable table and calls what the table lists for its
/// event. An update publishes a new table and hands the old one to `Domain`, which frees it when no
/// thread can be in it any more. `Domain` is tasks_domain or tasks_rude_domain, where a site is
/// that load and nothing else and every thread that runs through sites is a task, or
/// tasks_trace_domain, where a site is a section and threads are anybody.
///
/// A handler may still be called after detach() has returned, by threads that are in the old table;
/// not any more once the domain has passed a grace period: synchronize() before its context goes.
///
/// Thread safety: any thread. Handlers may not attach or detach under tasks_rude_domain; under the
///                others they may.
/// Ownership:     the table borrows the domain and the contexts.
/// Fork:          sites work in the child. attach() and detach() do unless another thread of the
///                parent was in one of them.
template <class Domain>
class probe_table {
 public:
  /// `events`: sites fire events [0, events).
  probe_table(Domain& domain, std::size_t events)
      : domain_(domain), events_(events), table_(new Table(events)) {}
  probe_table(const probe_table&) = delete;
  probe_table& operator=(const probe_table&) = delete;
  /// No thread may be in a site. Frees the last table; earlier ones are the domain's.
  ~probe_table() { delete table_.load(std::memory_order_acquire); }

  /// A probe site: calls the handlers of `event` in the order in which they were attached.
  void fire(std::size_t event, std::uint64_t a, std::uint64_t b) const {
    const typename Domain::section section(domain_);
    const Table& table = *table_.load(std::memory_order_acquire);
    const std::size_t end = table.begin[event + 1];
    for (std::size_t i = table.begin[event]; i < end; ++i) {
      table.handlers[i].call(table.handlers[i].context, a, b);
    }
  }

  /// Has `handler` called for `event` from now on. Errors: EINVAL, no such event or no function;
  /// EEXIST, it is attached. std::bad_alloc. Nothing has changed then.
  Result<void> attach(std::size_t event, probe_handler handler) {
    if (event >= events_ || !handler.call) return errno_error(EINVAL);
    const MutexLock lock(mutex_);
    Table* const old = table_.load(std::memory_order_relaxed);
    if (old->find(event, handler) != kNone) return errno_error(EEXIST);
    auto fresh = std::make_unique<Table>(*old);
    fresh->handlers.insert(
        fresh->handlers.begin() + static_cast<std::ptrdiff_t>(old->begin[event + 1]), handler);
    for (std::size_t e = event + 1; e <= events_; ++e) ++fresh->begin[e];
    publish(old, std::move(fresh));
    return {};
  }

  /// Takes it away again. Errors: EINVAL, no such event; ENOENT, it is not attached.
  /// std::bad_alloc. Nothing has changed then.
  Result<void> detach(std::size_t event, probe_handler handler) {
    if (event >= events_) return errno_error(EINVAL);
    const MutexLock lock(mutex_);
    Table* const old = table_.load(std::memory_order_relaxed);
    const std::size_t at = old->find(event, handler);
    if (at == kNone) return errno_error(ENOENT);
    auto fresh = std::make_unique<Table>(*old);
    fresh->handlers.erase(fresh->handlers.begin() + static_cast<std::ptrdiff_t>(at));
    for (std::size_t e = event + 1; e <= events_; ++e) --fresh->begin[e];
    publish(old, std::move(fresh));
    return {};
  }

  /// How many handlers are attached.
  std::size_t size() const {
    const MutexLock lock(mutex_);
    return table_.load(std::memory_order_relaxed)->handlers.size();
  }

 private:
  static constexpr std::size_t kNone = ~std::size_t{0};

  /// Immutable once published.
  struct Table : callback_head {
    explicit Table(std::size_t events) : begin(events + 1, 0) {}
    Table(const Table&) = default;
    std::size_t find(std::size_t event, const probe_handler& handler) const {
      for (std::size_t i = begin[event]; i < begin[event + 1]; ++i) {
        if (handlers[i] == handler) return i;
      }
      return kNone;
    }
    std::vector<std::size_t> begin;       // event e's handlers are [begin[e], begin[e + 1])
    std::vector<probe_handler> handlers;  // grouped by event
  };

  void publish(Table* old, std::unique_ptr<Table> fresh) TANDEM_REQUIRES(mutex_) {
    table_.store(fresh.release(), std::memory_order_release);
    domain_.call(*old, [](callback_head* head) noexcept {
      const std::unique_ptr<Table> table(static_cast<Table*>(head));
    });
  }

  Domain& domain_;
  const std::size_t events_;
  mutable Mutex mutex_;  // of updaters
  std::atomic<Table*> table_;
};

}  // namespace tandem::rcu
