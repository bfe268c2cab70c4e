// SPDX-License-Identifier: Apache-2.0
#include <pthread.h>
#include <time.h>

#include <algorithm>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/trace/trace.hpp"
#include "tandem/uacce/detail/scheduler.hpp"

namespace tandem::uacce::detail {
namespace {

using std::chrono::nanoseconds;

constexpr std::uint32_t kAsleep = 0;
constexpr std::uint32_t kWatching = 1;
/// A thread that used less CPU than this between two looks was waiting for something.
constexpr nanoseconds kMoved{200'000};
/// Looks without any lane awake before the watchdog sleeps: lanes that nap do not pay for its wake.
constexpr int kQuietLooks = 3;

nanoseconds cpu_time(std::thread& thread) {
  clockid_t clock;
  timespec now{};
  if (::pthread_getcpuclockid(thread.native_handle(), &clock) != 0) return {};
  if (::clock_gettime(clock, &now) != 0) return {};
  return std::chrono::seconds(now.tv_sec) + nanoseconds(now.tv_nsec);
}

}  // namespace

void Scheduler::wake_watchdog() { futex_wake(watching_); }

/// Called by a lane that woke up.
///
/// Ordering: the lane stored `asleep` = false before the load here, the watchdog stores kAsleep
/// before
///           it looks at `asleep`; all seq_cst, so one of them sees the other.
void Scheduler::lane_awake() {
  std::uint32_t asleep = kAsleep;
  if (watching_.load(std::memory_order_seq_cst) != kAsleep) return;
  if (watching_.compare_exchange_strong(asleep, kWatching)) wake_watchdog();
}

void Scheduler::watch() {
  using Clock = std::chrono::steady_clock;
  const nanoseconds tick =
      std::max<nanoseconds>(nanoseconds(stuck_after_) / 4, nanoseconds(1'000'000));
  const auto all_asleep = [this] {
    return std::all_of(lanes_.begin(), lanes_.end(),
                       [](const auto& lane) { return lane->asleep(); });
  };
  int quiet = 0;
  auto last = Clock::now();
  for (;;) {
    const std::uint32_t mode = watching_.load(std::memory_order_seq_cst);
    if (mode == kStopWatching) return;
    if (mode == kAsleep) {
      futex_wait(watching_, kAsleep);
      last = Clock::now();
      quiet = 0;
      continue;
    }
    futex_wait(watching_, kWatching, tick);
    const auto now = Clock::now();
    // After the machine was suspended, one look must not count for hours.
    const nanoseconds elapsed = std::min<nanoseconds>(now - last, tick * 2);
    last = now;
    std::vector<std::shared_ptr<Turn>> returned;
    {
      const MutexLock lock(mutex_);
      for (auto& post : posts_) inspect(post, elapsed);
      returned = take_returned_locked();
    }
    returned.clear();
    quiet = all_asleep() ? quiet + 1 : 0;
    if (quiet < kQuietLooks) continue;
    std::uint32_t watching = kWatching;
    if (!watching_.compare_exchange_strong(watching, kAsleep, std::memory_order_seq_cst)) continue;
    if (!all_asleep()) lane_awake();
  }
}

/// Gives a lane to a fresh thread when its operation has not moved for `stuck_after`.
///
/// Not moving is being in the same operation and using no CPU: an operation that computes for
/// minutes is slow, not stuck.
void Scheduler::inspect(Post& post, nanoseconds elapsed) {
  if (post.turn == nullptr) {
    (void)begin_turn(post);
    return;
  }
  Turn& turn = *post.turn;
  const std::uint64_t operation = turn.operation.load(std::memory_order_acquire);
  const bool in_worker = (operation & 1) != 0 && operation != Turn::kTaken;
  const nanoseconds cpu = in_worker ? cpu_time(turn.thread) : nanoseconds{};
  const bool moved = !in_worker || operation != post.operation || cpu - post.cpu_time >= kMoved;
  post.operation = operation;
  if (moved) {
    post.cpu_time = cpu;
    post.without_cpu = {};
    return;
  }
  post.without_cpu += elapsed;
  if (post.without_cpu < stuck_after_ || !turn.take(operation)) return;

  // The lane is ours until begin_turn().
  const Queue* const queue = turn.current.load(std::memory_order_relaxed);
  turn.kept = post.lane->find_hot(queue);
  TANDEM_CHECK(turn.kept != nullptr);
  TANDEM_TRACE(engine_given_up, turn.kept->id(), turn.kept->mm().pasid().value);
  turn.kept->engagement().tenant->threads_lost.fetch_add(1, std::memory_order_relaxed);
  // When its access ends, the thread finds the queue dead: it is the last that it makes in ordinary
  // memory, whose accesses are the ones that hang.
  turn.kept->die(TANDEM_QUEUE_STUCK);
  turn.kept->announce();
  turn.thread.detach();
  given_up_.push_back(post.turn);
  (void)begin_turn(post);  // else at the next look
}

}  // namespace tandem::uacce::detail
