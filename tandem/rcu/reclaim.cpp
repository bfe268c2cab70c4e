// SPDX-License-Identifier: Apache-2.0
// What becomes of retired objects.
//
// retire() stamps an object with a sequence value that it alone advanced to, and pushes it to
// `incoming`. A section that began after the retire has a state of at least the stamp; so an object
// is free once every reader in a section has a state of at least its stamp. That comparison, object
// by object, is what lets a barrier inside a section finish: it needs only stamps up to its own
// state, which its own section does not hold up.
//
//   incoming ──collect()──▶ pending ──no older reader──▶ ready ──▶ deleter
//
// The two lists and the right to run deleters belong to the holder of `role`: the worker, or a
// thread in barrier(). It never waits for readers while it holds the role, except in a deleter that
// calls barrier itself.
#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <csignal>

#include "tandem/base/futex.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/process.hpp"

namespace tandem::rcu::detail {
namespace {

constexpr std::uint64_t kHurry = 4096;       // queued objects that end the worker's pause
constexpr std::uint64_t kHighWater = 65536;  // queued objects from which retirers are slowed down
constexpr std::chrono::milliseconds kPause{1};  // between passes: gathers work, spares readers IPIs

enum WorkerState : std::uint32_t { kNoWorker, kWorkerRuns, kWorkerEnded };

/// The cores whose deleters are on this thread's stack, innermost first.
struct Frame {
  const Core* core;
  const Frame* outer;
};
constinit thread_local const Frame* frames = nullptr;

bool runs_deleters_of(const Core& core) noexcept {
  for (const Frame* frame = frames; frame; frame = frame->outer) {
    if (frame->core == &core) return true;
  }
  return false;
}

}  // namespace

void NodeList::push(Node& node) noexcept {
  node.next = nullptr;
  (tail ? tail->next : head) = &node;
  tail = &node;
}

Node& NodeList::pop() noexcept {
  Node& node = *head;
  head = node.next;
  if (!head) tail = nullptr;
  return node;
}

/// Ordering: (G) the push and the load of `work` are seq_cst, as are the worker's store of `work`
///           and its load of `incoming`: either it sees the object or we see it idle.
void Core::retire(Node& node, bool may_sleep) noexcept {
  node.stamp = sequence.fetch_add(1, std::memory_order_acq_rel) + 1;
  const std::uint64_t count = queued.fetch_add(1, std::memory_order_relaxed) + 1;
  node.next = incoming.load(std::memory_order_relaxed);
  while (!incoming.compare_exchange_weak(node.next, &node, std::memory_order_seq_cst,  // (G)
                                         std::memory_order_relaxed)) {
  }
  if (worker.load(std::memory_order_relaxed) == kNoWorker && !start_worker() && may_sleep &&
      frames == nullptr) {
    barrier(0);  // one pass
    return;
  }
  if (work.load(std::memory_order_seq_cst) == 0) notify_worker();  // (G)
  if (count % kHurry == 0) {
    hurry.fetch_add(1, std::memory_order_release);
    futex_wake(hurry);
  }
  if (count > kHighWater && may_sleep && frames == nullptr) throttle();
}

void Core::notify_worker() noexcept {
  if (work.exchange(1, std::memory_order_seq_cst) == 0) futex_wake(work);
}

/// Slows the caller down to the worker's pace; bounded, since the worker may wait for a lock that
/// the caller holds.
void Core::throttle() noexcept {
  throttled.fetch_add(1, std::memory_order_seq_cst);
  const std::uint32_t seen = drained.load(std::memory_order_seq_cst);
  if (queued.load(std::memory_order_seq_cst) > kHighWater) futex_wait(drained, seen, kPause);
  throttled.fetch_sub(1, std::memory_order_relaxed);
}

void Core::collect() noexcept {
  Node* newest = incoming.exchange(nullptr, std::memory_order_seq_cst);
  Node* oldest = nullptr;
  while (newest) {
    Node* const next = newest->next;
    newest->next = oldest;
    oldest = newest;
    newest = next;
  }
  while (oldest) {
    Node* const next = oldest->next;
    pending.push(*oldest);
    oldest = next;
  }
  if (pending.empty()) return;
  const std::uint64_t bound = sequence.load(std::memory_order_acquire);
  const bool early = planted_fault("rcu-early-grace-period");
  if (!early) grace_period_fence();  // (F), see wait_for_readers()
  const std::uint64_t safe = early ? bound : oldest_reader(bound);
  NodeList blocked;
  while (!pending.empty()) {
    Node& node = pending.pop();
    (node.stamp <= safe ? ready : blocked).push(node);
  }
  pending = blocked;
}

bool Core::reclaim_pass() noexcept {
  collect();
  const Frame frame{this, frames};
  frames = &frame;
  bool forked = false;
  std::uint64_t count = 0;
  // A deleter that calls barrier empties `ready` itself.
  while (!ready.empty() && !forked) {
    Node& node = ready.pop();
    node.run(&node);
    forked = current_generation() != generation;
    ++count;
  }
  frames = frame.outer;
  if (forked) return false;
  if (count == 0) return true;
  queued.fetch_sub(count, std::memory_order_seq_cst);
  drained.fetch_add(1, std::memory_order_seq_cst);
  if (throttled.load(std::memory_order_seq_cst) != 0) futex_wake(drained, INT_MAX);
  return true;
}

bool Core::holds_up_to(std::uint64_t limit) const noexcept {
  for (const NodeList* list : {&pending, &ready}) {
    for (const Node* node = list->head; node; node = node->next) {
      if (node->stamp <= limit) return true;
    }
  }
  return false;
}

/// An object that was retired before the call is in `incoming` or a list, or its deleter runs under
/// `role`; a pass of ours, under `role`, therefore finds it or finds it gone.
void Core::barrier(std::uint64_t limit) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  const bool within_deleter = runs_deleters_of(*this);
  for (;;) {
    if (!within_deleter) role.lock();
    if (!reclaim_pass()) return;  // a child: the role is the parent's
    const bool done = !holds_up_to(limit);
    if (!within_deleter) role.unlock();
    if (done) return;
    wait_for_readers(limit);
  }
}

bool Core::start_worker() noexcept {
  // ThreadSanitizer starts no threads in a child of a process that had several.
  if (kInstrumented && parent) return false;
  std::uint32_t state = kNoWorker;
  if (!worker.compare_exchange_strong(state, kWorkerRuns, std::memory_order_acq_rel)) return true;
  acquire();
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the application's threads
  pthread_t thread{};
  const int error = ::pthread_create(
      &thread, nullptr,
      [](void* core) -> void* {
        static_cast<Core*>(core)->worker_main();
        return nullptr;
      },
      this);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error == 0) {
    ::pthread_setname_np(thread, "tandem-rcu");
    ::pthread_detach(thread);
    return true;
  }
  worker.store(kNoWorker, std::memory_order_release);
  release();
  return false;
}

void Core::worker_main() noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  while (!stop.load(std::memory_order_acquire)) {
    const std::uint32_t seen = hurry.load(std::memory_order_acquire);
    role.lock();
    if (!reclaim_pass()) return;  // a child
    const std::uint64_t blocked = pending.empty() ? 0 : pending.head->stamp;
    role.unlock();
    if (blocked != 0) {
      wait_for_readers(blocked);
      continue;
    }
    if (!stop.load(std::memory_order_acquire)) futex_wait(hurry, seen, kPause);
    work.store(0, std::memory_order_seq_cst);         // (G)
    if (!incoming.load(std::memory_order_seq_cst) &&  // (G)
        !stop.load(std::memory_order_seq_cst)) {
      futex_wait(work, 0);
    }
    work.store(1, std::memory_order_relaxed);
  }
  worker.store(kWorkerEnded, std::memory_order_release);
  futex_wake(worker, INT_MAX);
  release();
}

void Core::stop_worker() noexcept {
  if (worker.load(std::memory_order_acquire) == kNoWorker) return;
  stop.store(true, std::memory_order_seq_cst);
  notify_worker();
  hurry.fetch_add(1, std::memory_order_release);
  futex_wake(hurry);
  while (worker.load(std::memory_order_acquire) != kWorkerEnded) futex_wait(worker, kWorkerRuns);
}

}  // namespace tandem::rcu::detail
