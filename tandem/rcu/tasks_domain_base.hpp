// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>

#include "tandem/rcu/callback_head.hpp"
#include "tandem/rcu/detail/callback_worker.hpp"
#include "tandem/rcu/detail/tasks_registry.hpp"

namespace tandem::rcu {

/// A thread that holds a grace period up for long.
struct tasks_stall {
  std::int32_t tid = 0;            ///< of the thread, as gettid()
  std::chrono::nanoseconds age{};  ///< how long the grace period has waited
  std::uint32_t report = 0;        ///< 1 for the first report of this grace period, then 2, …
};

/// Called for each of up to 16 threads, by a thread that waits for the grace period, without locks
/// of ours. It may not wait for a grace period of the same domain.
using tasks_stall_handler = void (*)(const tasks_stall& stall, void* context) noexcept;

/// What a domain has done in this process. Fork: a child's callback counts start at 0.
struct tasks_stats {
  std::uint64_t grace_periods = 0;      ///< that ended
  std::uint64_t callbacks_queued = 0;   ///< handed in
  std::uint64_t callbacks_invoked = 0;  ///< of those, returned
  std::uint64_t stalls = 0;             ///< reports, whether or not there is a handler
};

/// What tasks_domain, tasks_rude_domain and tasks_trace_domain have in common.
///
/// Threads belong to the flavour, not to a domain: as in the kernel, where each flavour exists
/// once, a grace period of any domain waits for every task of its flavour. Domains have callbacks,
/// counts and stall handlers of their own. A domain may be static: nothing starts before its first
/// use.
///
/// Thread safety: any thread, but for construction, destruction and set_stall_handler().
/// Fork:          usable in the child at once. The forking thread stays what it was; callbacks that
///                the parent queued are the parent's.
class tasks_domain_base {
 public:
  tasks_domain_base(const tasks_domain_base&) = delete;
  tasks_domain_base& operator=(const tasks_domain_base&) = delete;

  /// Has `handler` told when a grace period of this domain has waited for `limit`, and again when
  /// the wait has doubled, and so on. Null takes the handler away; the default limit is 10 s.
  ///
  /// Thread safety: before the domain's first grace period, or while it has none.
  void set_stall_handler(tasks_stall_handler handler, void* context = nullptr,
                         std::chrono::nanoseconds limit = std::chrono::seconds(10)) noexcept {
    stall_handler_ = handler;
    stall_context_ = context;
    stall_limit_ = limit;
  }

  /// A snapshot; its counts are of slightly different moments. Thread safety: any thread.
  tasks_stats stats() const noexcept;

 protected:
  tasks_domain_base(detail::Flavour& flavour, detail::Evidence evidence,
                    const char* thread_name) noexcept
      : flavour_(flavour), evidence_(evidence), worker_(thread_name, wait, this) {}
  ~tasks_domain_base() = default;

  /// Waits for a grace period; the caller holds none up.
  void wait() noexcept;
  static void wait(void* self) noexcept { static_cast<tasks_domain_base*>(self)->wait(); }

  detail::CallbackWorker& worker() noexcept { return worker_; }

  template <class F>
  static callback_head& make_callback(F function) {
    struct Call : callback_head {
      explicit Call(F&& what) : function_(std::move(what)) {
        run = [](callback_head* head) noexcept {
          const std::unique_ptr<Call> self(static_cast<Call*>(head));
          self->function_();
        };
      }
      F function_;
    };
    return *new Call(std::move(function));
  }

 private:
  class StallWatch;

  detail::Flavour& flavour_;
  const detail::Evidence evidence_;
  tasks_stall_handler stall_handler_ = nullptr;
  void* stall_context_ = nullptr;
  std::chrono::nanoseconds stall_limit_ = std::chrono::seconds(10);
  std::atomic<std::uint64_t> grace_periods_{0};
  std::atomic<std::uint64_t> stalls_{0};
  detail::CallbackWorker worker_;  // last: its destructor runs callbacks, which need the rest
};

}  // namespace tandem::rcu
