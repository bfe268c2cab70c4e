// SPDX-License-Identifier: Apache-2.0
/// Which engine thread runs which queue, and when.
///
/// A queue is *hot* when an engine thread polls it: it is in that thread's list, nobody else looks
/// at its ring. It is *cold* when it waits in its client's Engagement, `parked`, for the client's
/// wake descriptor. It moves hot → cold after `spin_before_park` without work, cold → hot by a wake
/// or a hold, and from thread to thread by mail. Nothing walks cold queues but a wake of their own
/// client.
///
/// An engine thread takes its hot tenants in turn, a quantum each, and each tenant's hot queues in
/// turn, a batch each. What counts is the time of engine threads, in bytes that they copy meanwhile
/// (Queue::run()). Tenants that are ahead of the others by what all engine threads spent on them
/// (Tenant::served) are passed over while others have work, so that more queues, queues on more
/// threads, or operations that take long or fail give no larger share. An operation runs to its
/// end, however long: the others catch up afterwards.
///
/// Lock order: Scheduler::mutex_ → Lane::mutex_; Engagement::mutex → Lane::mutex_.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/base/mutex.hpp"
#include "tandem/base/unique_fd.hpp"
#include "tandem/uacce/detail/queue.hpp"
#include "tandem/uacce/detail/tenant.hpp"

namespace tandem::uacce::detail {

class Lane;

/// What engine threads know of one client: its wake descriptor and its cold queues.
class Engagement {
 public:
  Engagement(std::uint64_t client_id, std::shared_ptr<Tenant> client_tenant, UniqueFd wake_fd)
      : id(client_id), tenant(std::move(client_tenant)), wake(std::move(wake_fd)) {}

  const std::uint64_t id;
  const std::shared_ptr<Tenant> tenant;
  /// Eventfd that the client writes. Watched edge-triggered and read only when it is full, without
  /// waiting: the client and its children hold the same open file and may clear O_NONBLOCK.
  const UniqueFd wake;
  Lane* home = nullptr;  ///< watches `wake`; set once, before any queue starts

  Mutex mutex;
  std::vector<std::shared_ptr<Queue>> cold TANDEM_GUARDED_BY(mutex);
};

/// One thread's turn at running a lane. When its operation does not return, the lane is taken away
/// from it and given to a fresh one; it then ends without touching the lane again.
class Turn final : public Executor {
 public:
  std::optional<Completion> execute(Queue& queue, const tandem_descriptor& descriptor) override;

  /// The queue being visited; written by the thread, read by let_go() and the watchdog.
  std::atomic<const Queue*> current{nullptr};
  /// Even: not in a worker. Odd: in a worker; grows with each operation. kTaken: lane taken away.
  /// Ordering: (W) entering releases the lane's state, taking it away acquires it.
  std::atomic<std::uint64_t> operation{0};
  static constexpr std::uint64_t kTaken = ~std::uint64_t{0};
  std::atomic<bool> ended{false};  ///< the thread is about to return
  /// Takes the lane away if the thread is still in operation `seen`.
  bool take(std::uint64_t seen) {
    return operation.compare_exchange_strong(seen, kTaken, std::memory_order_acq_rel);  // (W)
  }
  bool taken() const { return operation.load(std::memory_order_acquire) == kTaken; }
  /// Drops workers of devices that have been removed.
  void purge_workers();
  /// Executes, and tells memory that only needs staging from memory that is not there. An
  /// exception, also of `worker`, which may make one, becomes a fault at address 0.
  template <class WorkerFor>
  static Completion run_operation(const WorkerFor& worker, Queue& queue,
                                  const tandem_descriptor& descriptor) {
    try {
      const Completion completion = worker().execute(descriptor, queue.space(), queue.session());
      return completion.status == TANDEM_STATUS_FAULT ? after_fault(completion, queue) : completion;
    } catch (...) {
      // Out of memory, most likely, else an engine's mistake: one operation pays, not the broker.
      return {.status = TANDEM_STATUS_FAULT};
    }
  }

  std::thread thread;           // started and joined or detached by the Scheduler
  std::shared_ptr<Queue> kept;  // written by who took the lane: keeps what the thread still uses

 private:
  static Completion after_fault(Completion completion, const Queue& queue);
  Worker& worker_for(const std::shared_ptr<Device>& device);
  // The thread's own. A worker may refer to its engine, which the device keeps.
  std::vector<std::pair<std::shared_ptr<Device>, std::unique_ptr<Worker>>> workers_;
};

class Scheduler;

/// What one engine thread works on; outlives the threads that take turns at it.
class Lane {
 public:
  explicit Lane(Scheduler& scheduler);
  bool ready() const { return epoll_ && bell_; }

  /// \name Thread safety: any thread
  /// @{
  void adopt(std::shared_ptr<Queue> queue);  ///< makes it hot here
  void ring();                               ///< has the thread look at its mail
  Result<void> watch(std::shared_ptr<Engagement> engagement);
  void unwatch(Engagement& engagement);
  std::size_t watched() const;
  bool asleep() const { return asleep_.load(std::memory_order_seq_cst); }
  std::uint32_t load() const { return load_.load(std::memory_order_relaxed); }
  /// @}

  /// Runs until the scheduler stops or the lane is taken away from `turn`.
  void run(Turn& turn);
  /// The shared_ptr of a hot queue. Only while no turn runs.
  std::shared_ptr<Queue> find_hot(const Queue* queue) const;

 private:
  using Clock = std::chrono::steady_clock;
  struct HotQueue {
    std::shared_ptr<Queue> queue;
    Clock::time_point last_work;
    bool worked = true;   // since last_work was taken
    bool working = true;  // had work between the last two balances
  };
  struct HotTenant {
    std::shared_ptr<Tenant> tenant;
    std::vector<HotQueue> queues;
    std::size_t next = 0;        // whose turn it is
    std::int64_t deficit = 0;    // cost it may still have in this round
    std::uint64_t unbilled = 0;  // served, not yet added to tenant->served
    bool worked = true;          // at its last visit
    bool returned = true;        // has been away; not yet brought near the others
    std::uint64_t served() const {
      return tenant->served.load(std::memory_order_relaxed) + unbilled;
    }
    std::uint64_t stride() const {
      return std::max(tenant->stride.load(std::memory_order_relaxed), unbilled);
    }
  };
  enum class Visit : std::uint8_t { kIdle, kWorked, kLost };

  Visit pass(Turn& turn);
  Visit visit(Turn& turn, HotTenant& tenant);
  Visit visit(Turn& turn, HotTenant& tenant, HotQueue& hot);
  void limit_lag();
  void housekeep(Turn& turn);
  void expel();
  void bill();
  void open_mail(Turn& turn);
  void make_hot(std::shared_ptr<Queue> queue, Clock::time_point now);
  void drop_dead();
  void park_idle(Clock::time_point now);
  bool try_park(const std::shared_ptr<Queue>& queue);
  void balance();
  bool shed(Lane& to);
  void sleep();
  void poll_wakes(int timeout_ms);
  void on_wake(std::uint64_t client, bool full);

  Scheduler& scheduler_;
  UniqueFd epoll_;
  UniqueFd bell_;  // eventfd of ours alone

  // The running turn's.
  std::vector<HotTenant> hot_;
  std::int64_t credit_ = 0;  // until the next housekeeping
  std::uint64_t lead_ = 0;   // a tenant served more than this is passed over
  Clock::time_point last_poll_, last_balance_;
  bool dead_seen_ = false;

  alignas(kCacheLine) std::atomic<bool> mail_flag_{false};  // set by ring(), cleared by the turn
  std::atomic<bool> asleep_{false};          // written by the turn; read by watchdog and balancers
  std::atomic<std::uint32_t> load_{0};       // queues that work; written by the turn and adopt()
  std::atomic<std::uint64_t> least_served_;  // of tenants that work; written by the turn

  mutable Mutex mutex_;
  std::vector<std::shared_ptr<Queue>> mail_ TANDEM_GUARDED_BY(mutex_);
  std::map<std::uint64_t, std::shared_ptr<Engagement>> watched_ TANDEM_GUARDED_BY(mutex_);
};

/// The engine threads and the watchdog.
class Scheduler {
 public:
  static Result<std::unique_ptr<Scheduler>> create(int threads,
                                                   std::chrono::microseconds spin_before_park,
                                                   std::chrono::milliseconds stuck_after);
  ~Scheduler();  ///< every queue is dead and let go

  bool inline_mode() const { return lanes_.empty(); }
  int threads() const { return static_cast<int>(lanes_.size()); }

  /// Gives a client a home. Errors: the errno of epoll_ctl().
  Result<void> engage(const std::shared_ptr<Engagement>& engagement);
  void disengage(Engagement& engagement);

  /// Takes a queue that has just been started.
  void start(const std::shared_ptr<Queue>& queue);
  void hold(const std::shared_ptr<Queue>& queue, bool keep_awake);
  /// After queue->die(): returns when no operation of the queue runs, or the watchdog gave the
  /// thread up, or `limit` is over (false). Announces the death unless the limit was over; then the
  /// engine thread does it when its operation ends.
  bool let_go(const std::shared_ptr<Queue>& queue, std::chrono::milliseconds limit);
  /// Whether a thread visits `queue` now. Ask this before given_up(): one of them is true as long
  /// as an operation runs.
  bool runs(const Queue& queue) const;
  /// Whether an operation of `queue` was given up and has not returned.
  bool given_up(const Queue& queue) const;
  /// Forgets the threads that were given up and have returned: they are no longer lost to their
  /// user.
  void collect_returned();
  /// Runs what `queue` has pending here. Only in inline mode.
  std::size_t run_here(Queue& queue);
  /// Has every thread drop workers of removed devices.
  void purge();

  std::chrono::milliseconds stuck_after() const { return stuck_after_; }

 private:
  friend class Lane;
  struct Post {  // a lane and who runs it
    std::shared_ptr<Lane> lane;
    std::shared_ptr<Turn> turn;               // nullptr while there is no thread for the lane
    std::uint64_t operation = 0;              // seen by the watchdog at its last look
    std::chrono::nanoseconds cpu_time{0};     // of the thread, then
    std::chrono::nanoseconds without_cpu{0};  // how long nothing has moved
  };

  Scheduler(std::chrono::microseconds spin_before_park, std::chrono::milliseconds stuck_after);
  /// Returns: false when there is no thread to be had; the watchdog tries again.
  bool begin_turn(Post& post) TANDEM_REQUIRES(mutex_);
  void lane_awake();  ///< has the watchdog watch
  void wake_watchdog();
  void watch();
  void inspect(Post& post, std::chrono::nanoseconds elapsed) TANDEM_REQUIRES(mutex_);
  /// As collect_returned(); the result, which may keep queues, is dropped without the lock.
  std::vector<std::shared_ptr<Turn>> take_returned_locked() TANDEM_REQUIRES(mutex_);
  Lane& idlest();
  bool visited(const Queue& queue) const;

  const std::chrono::microseconds spin_before_park_;
  const std::chrono::milliseconds stuck_after_;
  const bool process_fence_;  // else both sides of `current`/death fence fully
  bool yield_ = false;        // as many engine threads as CPUs: let others run while idle
  std::atomic<bool> stop_{false};
  std::vector<std::shared_ptr<Lane>> lanes_;  // constant after create()

  mutable Mutex mutex_;
  std::vector<Post> posts_ TANDEM_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<Turn>> given_up_ TANDEM_GUARDED_BY(mutex_);

  // Futex word: 0 the watchdog sleeps, 1 it watches, kStopWatching it ends. Set to 1 by lanes when
  // they wake up; starts as 1, since a lane may get work before it has ever slept.
  std::atomic<std::uint32_t> watching_{1};
  static constexpr std::uint32_t kStopWatching = 2;
  std::thread watchdog_;
};

}  // namespace tandem::uacce::detail
