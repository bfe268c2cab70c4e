// SPDX-License-Identifier: Apache-2.0
/// One queue as the framework sees it: its states, its regions, and its rings.
///
/// The regions are shared with a client that may be hostile: a word the client writes is loaded
/// once into a private copy, and nothing we wrote there is read back. What we rely on (indices,
/// phase, state) is private.
///
/// End of a queue, in three steps. die() happens once, from any thread; from then on nothing is
/// started and ordinary memory refuses the operation that runs (InFlight::enter()). Engine threads
/// let go of the queue (Scheduler::let_go()): nobody touches the client's memory for it any more.
/// Only then announce() tells the client, which takes every request without a completion in the
/// ring for lost, and its buffers back. Nothing is completed as cancelled.
///
/// Who announces: let_go(); the engine thread that drops the dead queue, when let_go() did not wait
/// so long; the watchdog, for an operation that hangs. The last has no thread to wait for: what it
/// can promise is that the one access that hangs may still happen, and nothing after it.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

#include "tandem/abi/ring.h"
#include "tandem/base/cpu.hpp"
#include "tandem/base/mapping.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/uacce/detail/registry.hpp"
#include "tandem/uacce/framework.hpp"

namespace tandem::uacce::detail {

class Engagement;

/// What a queue did. Written only by the thread that runs the queue, read by anyone: each number is
/// exact, together they may be from different instants.
struct QueueCounters {
  struct Values {
    std::uint64_t operations = 0, faults = 0;
    std::uint64_t bytes_zero_copy = 0, bytes_copied = 0;
    std::uint64_t bytes_read = 0;
    std::uint64_t translations = 0, translation_hits = 0;

    Values& operator+=(const Values& other);
  };
  Values read() const;
  void add(const Values& more);

 private:
  std::atomic<std::uint64_t> operations_{0}, faults_{0};
  std::atomic<std::uint64_t> bytes_zero_copy_{0}, bytes_copied_{0};
  std::atomic<std::uint64_t> bytes_read_{0};
  std::atomic<std::uint64_t> translations_{0}, translation_hits_{0};
};

/// Runs operations that are not the framework's own.
class Executor {
 public:
  /// When this thread last read the clock: what has not been timed took at most the time since.
  std::chrono::steady_clock::time_point looked{};

  virtual ~Executor() = default;
  /// Returns: nothing when the calling thread lost the queue meanwhile; it must not touch it again.
  virtual std::optional<Completion> execute(Queue& queue, const tandem_descriptor& descriptor) = 0;
};

class Queue : public std::enable_shared_from_this<Queue> {
 public:
  struct Setup {
    std::uint32_t id = 0;
    std::uint32_t depth = 0;
    std::shared_ptr<Device> device;
    std::shared_ptr<Mm> mm;
    std::shared_ptr<Engagement> engagement;
  };
  /// A queue in state INIT. Errors: the errno of creating or mapping its memfds; ENOMEM.
  static Result<std::shared_ptr<Queue>> create(Setup setup);
  ~Queue();

  static std::uint64_t rings_region_size(std::uint32_t depth) {
    return round_up_to_page(tandem_rings_size(depth));
  }

  std::uint32_t id() const { return setup_.id; }
  std::uint32_t depth() const { return setup_.depth; }
  Device& device() const { return *setup_.device; }
  const std::shared_ptr<Device>& shared_device() const { return setup_.device; }
  const Mm& mm() const { return *setup_.mm; }
  Engagement& engagement() const { return *setup_.engagement; }
  const pcie::AddressSpace& space() const { return space_; }
  Session* session() const { return session_.get(); }
  QueueCounters& counters() { return counters_; }

  /// \name Control calls
  /// Thread safety: any thread. Errors as in Client.
  /// @{
  Result<UniqueFd> map(std::uint32_t region, std::uint64_t size_bytes);
  Result<UniqueFd> event();
  /// INIT → STARTED. Errors: EINVAL in any other state.
  Result<void> start();
  QueueState state() const;
  /// Makes the queue ZOMBIE, once. The client does not learn of it before announce().
  /// Returns: false when it was dead already.
  bool die(tandem_queue_state reason);
  /// Publishes the reason of a dead queue and wakes the client, once.
  /// Precondition: no operation of the queue runs, or it can reach the client's memory no more.
  void announce();
  /// @}

  /// Leaves TANDEM_QUEUE_ALIVE once.
  const std::atomic<std::uint32_t>& death() const { return death_; }
  bool dead() const { return death_.load(std::memory_order_acquire) != TANDEM_QUEUE_ALIVE; }
  bool started() const { return started_.load(std::memory_order_acquire); }

  /// \name The running thread's part
  /// One thread at a time.
  /// @{

  /// How many descriptors the client says wait; more than depth() means the tail is not sane.
  /// Ordering: (A) acquires the descriptors; pairs with the client's release store of `tail`.
  std::uint32_t pending() const { return tail() - head_; }
  std::uint32_t tail() const {
    return std::atomic_ref(doorbell_->tail).load(std::memory_order_acquire);  // (A)
  }
  std::uint32_t position() const { return head_; }
  /// Starts to bring in the next descriptor. Not the next completion: the client polls that line
  /// and would take it back before we write it.
  void prefetch() const { prefetch_descriptor(head_); }

  struct Batch {
    std::uint32_t operations = 0;
    std::uint64_t cost = 0;  ///< in bytes: see run()
    bool lost = false;       ///< the thread lost the queue: do not touch it
  };
  /// Runs at most kBatch descriptors, until their cost reaches `budget`.
  ///
  /// An operation costs the time it took, in bytes that an engine copies meanwhile, and at least
  /// its operands and a fixed cost. Looking at the clock costs as much as a small copy. So a queue
  /// whose last operations were small, quick (DeviceTraits::quick) and successful in place is not
  /// timed: they cost their bytes; another outcome costs the time since `executor.looked`, which is
  /// more than it took, and has the next kWary operations timed. Precondition: 0 < `pending` ≤
  /// depth().
  Batch run(std::uint32_t pending, std::uint64_t budget, Executor& executor);
  static constexpr std::uint32_t kBatch = 32;
  /// What every operation costs beyond its bytes, in bytes: about 50 ns of an engine.
  static constexpr std::uint64_t kOperationCost = 512;
  static constexpr std::uint64_t kCostPerNanosecond = 10;
  static constexpr std::uint32_t kWary = 64;
  static constexpr std::uint64_t kUnlimited = ~std::uint64_t{0};  ///< budget; cost is not measured
  /// @}

  /// \name Parking; called under the engagement's mutex
  /// @{
  void set_parked(bool parked) {
    std::atomic_ref(doorbell_->parked).store(parked ? 1u : 0u, std::memory_order_relaxed);
  }
  /// Publishes `parked` and looks at the tail once more.
  /// Returns: whether the client has to wake us for what it submits from now on.
  bool park();
  /// @}

  /// One caller at a time runs an inline queue; also waited for when the queue dies.
  std::atomic<bool> inline_claim{false};
  std::unique_ptr<Worker> inline_worker;  // used under inline_claim
  bool cold = false;                      // in Engagement::cold; under its mutex
  bool held = false;                      // keep_awake; under the engagement's mutex

 private:
  Queue(Setup setup, UniqueFd mmio, UniqueFd dus, Mapping doorbell, Mapping rings);

  using Words = std::array<std::uint64_t, sizeof(tandem_descriptor) / 8>;
  /// A completion to be written: its words, the last one without its phase.
  struct Answer {
    std::uint64_t tag, fault_address, result, last;
  };
  static Answer answer(const Completion& from, std::uint64_t tag);

  Words load_words(std::uint32_t index) const;
  void prefetch_descriptor(std::uint32_t index) const {
    __builtin_prefetch(submissions_ + std::uint64_t{index & mask_} * sizeof(tandem_descriptor), 0,
                       3);
  }
  void prefetch_completion(std::uint32_t index) const {
    prefetch_for_write(completions_ + std::uint64_t{index & mask_} * sizeof(tandem_completion));
  }
  void stage(const Answer& answer);
  void publish();
  bool to_be_timed(const tandem_descriptor& descriptor) const;
  bool as_expected(const Completion& completion) const;
  void account(const Completion& completion, const tandem_descriptor& descriptor,
               QueueCounters::Values& more) const;
  void trace_end(const tandem_descriptor& descriptor,
                 const std::optional<Completion>& completion) const;
  void serve_waiter();
  void wake_client(std::uint32_t how);

  // Constant while the queue runs.
  const Setup setup_;
  tandem_doorbell* doorbell_;
  std::byte* submissions_;  // never written
  std::byte* completions_;
  std::uint32_t mask_;
  const bool quick_;
  pcie::AddressSpace space_;
  std::unique_ptr<Session> session_;
  Mapping doorbell_mapping_, rings_mapping_;
  std::atomic<std::uint32_t> death_{
      TANDEM_QUEUE_ALIVE};              // leaves ALIVE once, by die(); read by all
  std::atomic<bool> announced_{false};  // set by announce(); read by all
  std::atomic<bool> started_{false};    // set by start(); read by all
  std::atomic<int> event_fd_{-1};       // set by event(); read by all

  // The running thread's.
  alignas(kCacheLine) std::uint32_t head_ = 0;  // next descriptor
  std::uint32_t completed_ = 0;                 // completions written: next slot, and the phase
  std::uint32_t staged_count_ = 0;
  std::uint32_t wary_ = 0;     // operations still to be timed
  std::uint32_t handled_ = 0;  // counts for planted faults only
  Answer staged_[kBatch + 1];  // one more for a planted fault
  QueueCounters counters_;

  alignas(kCacheLine) mutable Mutex mutex_;
  UniqueFd mmio_ TANDEM_GUARDED_BY(mutex_);  // until handed out
  UniqueFd dus_ TANDEM_GUARDED_BY(mutex_);
  UniqueFd event_send_ TANDEM_GUARDED_BY(mutex_);
};

}  // namespace tandem::uacce::detail
