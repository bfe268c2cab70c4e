// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/queue.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <climits>
#include <cstddef>
#include <new>
#include <utility>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/field.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/trace/trace.hpp"
#include "tandem/uacce/detail/scheduler.hpp"

namespace tandem::uacce::detail {

QueueCounters::Values& QueueCounters::Values::operator+=(const Values& other) {
  operations += other.operations;
  faults += other.faults;
  bytes_zero_copy += other.bytes_zero_copy;
  bytes_copied += other.bytes_copied;
  bytes_read += other.bytes_read;
  translations += other.translations;
  translation_hits += other.translation_hits;
  return *this;
}

QueueCounters::Values QueueCounters::read() const {
  const auto get = [](const std::atomic<std::uint64_t>& value) {
    return value.load(std::memory_order_relaxed);
  };
  return {get(operations_), get(faults_),       get(bytes_zero_copy_), get(bytes_copied_),
          get(bytes_read_), get(translations_), get(translation_hits_)};
}

void QueueCounters::add(const Values& more) {
  const auto bump = [](std::atomic<std::uint64_t>& value, std::uint64_t by) {
    if (by != 0) {  // one writer: no read-modify-write needed
      value.store(value.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
    }
  };
  bump(operations_, more.operations);
  bump(faults_, more.faults);
  bump(bytes_zero_copy_, more.bytes_zero_copy);
  bump(bytes_copied_, more.bytes_copied);
  bump(bytes_read_, more.bytes_read);
  bump(translations_, more.translations);
  bump(translation_hits_, more.translation_hits);
}

Result<std::shared_ptr<Queue>> Queue::create(Setup setup) {
  auto mmio = make_sealed_memfd("tandem-mmio", kPageSize);
  if (!mmio) return Unexpected{mmio.error()};
  const std::uint64_t rings_size = rings_region_size(setup.depth);
  auto dus = make_sealed_memfd("tandem-dus", rings_size);
  if (!dus) return Unexpected{dus.error()};
  auto doorbell = Mapping::shared(mmio->get(), kPageSize);
  if (!doorbell) return Unexpected{doorbell.error()};
  auto rings = Mapping::shared(dus->get(), rings_size);
  if (!rings) return Unexpected{rings.error()};
  try {
    return std::shared_ptr<Queue>(new Queue(std::move(setup), std::move(*mmio), std::move(*dus),
                                            std::move(*doorbell), std::move(*rings)));
  } catch (const std::bad_alloc&) {  // also of make_session()
    return errno_error(ENOMEM);
  }
}

Queue::Queue(Setup setup, UniqueFd mmio, UniqueFd dus, Mapping doorbell, Mapping rings)
    : setup_(std::move(setup)),
      doorbell_(reinterpret_cast<tandem_doorbell*>(doorbell.data())),
      submissions_(rings.data()),
      completions_(rings.data() + std::uint64_t{setup_.depth} * sizeof(tandem_descriptor)),
      mask_(setup_.depth - 1),
      quick_(setup_.device->traits().quick),
      space_(setup_.device->endpoint().space(setup_.mm->pasid())),
      session_(setup_.device->engine().make_session_for(setup_.engagement->tenant->id)),
      doorbell_mapping_(std::move(doorbell)),
      rings_mapping_(std::move(rings)),
      mmio_(std::move(mmio)),
      dus_(std::move(dus)) {
  doorbell_mapping_.exclude_from_fork();
  rings_mapping_.exclude_from_fork();
}

Queue::~Queue() = default;

Result<UniqueFd> Queue::map(std::uint32_t region, std::uint64_t size_bytes) {
  const MutexLock lock(mutex_);
  if (dead()) return errno_error(EINVAL);
  UniqueFd* fd = nullptr;
  std::uint64_t size = 0;
  if (region == TANDEM_REGION_MMIO) {
    fd = &mmio_;
    size = doorbell_mapping_.size();
  } else if (region == TANDEM_REGION_DUS) {
    fd = &dus_;
    size = rings_mapping_.size();
  } else {
    return errno_error(EINVAL);
  }
  if (size_bytes != size) return errno_error(EINVAL);
  if (!*fd) return errno_error(EEXIST);
  return std::move(*fd);
}

Result<UniqueFd> Queue::event() {
  const MutexLock lock(mutex_);
  if (dead()) return errno_error(EINVAL);
  if (event_send_) return errno_error(EEXIST);
  // A stream of bytes, not an eventfd: nothing the client does to its end can make ours block.
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
    return last_errno();
  }
  event_send_.reset(ends[0]);
  event_fd_.store(ends[0], std::memory_order_release);
  return UniqueFd(ends[1]);
}

Result<void> Queue::start() {
  const MutexLock lock(mutex_);
  if (dead() || started_.load(std::memory_order_relaxed)) return errno_error(EINVAL);
  started_.store(true, std::memory_order_release);
  return {};
}

QueueState Queue::state() const {
  if (dead()) return QueueState::kZombie;
  return started() ? QueueState::kStarted : QueueState::kInit;
}

bool Queue::die(tandem_queue_state reason) {
  std::uint32_t alive = TANDEM_QUEUE_ALIVE;
  // seq_cst: ordered before the look at who runs the queue in Scheduler::let_go().
  if (!death_.compare_exchange_strong(alive, reason, std::memory_order_seq_cst)) return false;
  TANDEM_TRACE(queue_death, setup_.id, reason);
  return true;
}

void Queue::announce() {
  TANDEM_CHECK(dead());
  // Before the exchange: also when it is another thread that announces, the session has stopped
  // when this returns.
  if (session_) session_->stop();
  if (announced_.exchange(true, std::memory_order_acq_rel)) return;
  std::atomic_ref(doorbell_->state)
      .store(death_.load(std::memory_order_relaxed), std::memory_order_release);
  // Whoever sleeps, however it does: the client's `waiting` may be about to change.
  wake_client(TANDEM_WAIT_FUTEX);
  wake_client(TANDEM_WAIT_FD);
}

/// The fence that parking stands on.
///
/// The client does   S1: store tail     F1: fence   L1: load parked;   if 1: write the wake fd
/// we do             S2: store parked=1 F2: fence   L2: load tail;     if new: unpark and run
///
/// Claim: a descriptor published by S1 is run. Both fences are full, so they are ordered one way or
/// the other. F1 before F2: S1 is visible to L2, we see the tail and do not park. F2 before F1: S2
/// is visible to L1, the client writes the wake descriptor after S1. The write is an event on the
/// home thread's epoll set; the thread then takes the engagement's mutex, which we hold from before
/// S2 until the queue is in the cold list, so it finds the queue there, and the tail with it (the
/// system call orders S1 before what the woken thread reads). A thread that unparks concurrently
/// does it under the same mutex. A client that reads a stale 1 in L1 only writes one wake too many;
/// a stale 0 is excluded by the above.
bool Queue::park() {
  static const bool fenceless = planted_fault("uacce-missing-park-fence");
  std::atomic_ref(doorbell_->parked).store(1, std::memory_order_relaxed);  // S2
  if (!fenceless) {
    full_fence();  // F2
  }
  if (pending() == 0) {  // L2
    TANDEM_TRACE(park, setup_.id, setup_.mm->pasid().value);
    return true;
  }
  set_parked(false);
  return false;
}

inline Queue::Words Queue::load_words(std::uint32_t index) const {
  // Word by word and once each: what is checked is what runs, whatever the client does meanwhile.
  auto* const words = reinterpret_cast<std::uint64_t*>(submissions_) +
                      std::uint64_t{index & mask_} * (sizeof(tandem_descriptor) / 8);
  Words copy;
  for (std::size_t i = 0; i < copy.size(); ++i) {
    copy[i] = std::atomic_ref(words[i]).load(std::memory_order_relaxed);
  }
  return copy;
}

inline void Queue::stage(const Answer& answer) {
  static const bool lose = planted_fault("uacce-lost-completion");
  static const bool repeat = planted_fault("uacce-double-completion");
  const bool planted = (lose || repeat) && ++handled_ == 1000;
  if (planted && lose) return;
  staged_[staged_count_++] = answer;
  if (planted && repeat) staged_[staged_count_++] = answer;
}

namespace {

/// The last word of a completion; its first half is `done`.
using LastStatus = Field<47, 32>;
using LastFlags = Field<63, 48>;
static_assert(offsetof(tandem_completion, status) == 28 &&
              offsetof(tandem_completion, flags) == 30);

}  // namespace

Queue::Answer Queue::answer(const Completion& from, std::uint64_t tag) {
  std::uint64_t flags = from.stream_end ? TANDEM_CPL_STREAM_END : 0;
  if (from.status == TANDEM_STATUS_OK && from.bytes_zero_copy != 0 && from.bytes_copied == 0) {
    flags |= TANDEM_CPL_ZERO_COPY;
  }
  return {tag, from.fault_address, from.result,
          from.done | LastStatus::make(from.status) | LastFlags::make(flags)};
}

/// Writes the staged completions from the newest to the oldest. A client polls the oldest, so its
/// polling disturbs us only at the end, and once it sees that one it finds the others in place.
///
/// Ordering: (B) each last word, with its phase, is released after its body; pairs with the
/// client's
///           acquire load.
void Queue::publish() {
  for (std::uint32_t i = staged_count_; i-- > 0;) {
    const std::uint32_t index = completed_ + i;
    auto* const to = reinterpret_cast<std::uint64_t*>(completions_) +
                     std::uint64_t{index & mask_} * (sizeof(tandem_completion) / 8);
    const bool phase = (index & setup_.depth) == 0;
    const std::uint64_t last = staged_[i].last | LastFlags::make(phase ? TANDEM_CPL_PHASE : 0);
    std::atomic_ref(to[0]).store(staged_[i].tag, std::memory_order_relaxed);
    std::atomic_ref(to[1]).store(staged_[i].fault_address, std::memory_order_relaxed);
    std::atomic_ref(to[2]).store(staged_[i].result, std::memory_order_relaxed);
    std::atomic_ref(to[3]).store(last, std::memory_order_release);  // (B)
  }
  completed_ += staged_count_;
  staged_count_ = 0;
}

namespace {

/// The first word of a descriptor.
using Opcode = Field<15, 0>;
/// Words of a descriptor.
constexpr std::size_t kFirst = 0, kTag = 5, kReserved0 = 6, kReserved1 = 7;
static_assert(offsetof(tandem_descriptor, tag) == kTag * 8 &&
              offsetof(tandem_descriptor, reserved) == kReserved0 * 8);

std::uint64_t bytes_read(const tandem_descriptor& descriptor, const Completion& completion) {
  if (completion.status != TANDEM_STATUS_OK) return 0;
  return ((descriptor.opcode & TANDEM_OP_SRC_IN) != 0 ? descriptor.src_len : 0u) +
         std::uint64_t{(descriptor.opcode & TANDEM_OP_DST_IN) != 0 ? descriptor.dst_len : 0u};
}

/// A client that sleeps is looked after at least this often, in cost.
constexpr std::uint64_t kWaiterCost = 16 * 1024;

/// Operand bytes of an operation that need not be timed.
constexpr std::uint64_t kSmall = 128 * 1024;

}  // namespace

inline bool Queue::to_be_timed(const tandem_descriptor& descriptor) const {
  return !quick_ || wary_ != 0 || std::uint64_t{descriptor.src_len} + descriptor.dst_len > kSmall;
}

inline bool Queue::as_expected(const Completion& completion) const {
  return quick_ && completion.status == TANDEM_STATUS_OK && completion.bytes_copied == 0 &&
         completion.bytes_zero_copy <= kSmall;
}

inline void Queue::account(const Completion& completion, const tandem_descriptor& descriptor,
                           QueueCounters::Values& more) const {
  ++more.operations;
  more.bytes_zero_copy += completion.bytes_zero_copy;
  more.bytes_copied += completion.bytes_copied;
  more.bytes_read += bytes_read(descriptor, completion);
  if (completion.status == TANDEM_STATUS_FAULT) ++more.faults;
}

inline void Queue::trace_end(const tandem_descriptor& descriptor,
                             const std::optional<Completion>& completion) const {
  const std::uint32_t status = completion ? completion->status : +TANDEM_STATUS_DEVICE_LOST;
  if (status == TANDEM_STATUS_FAULT) {
    TANDEM_TRACE(operation_fault, setup_.mm->pasid().value, completion->fault_address, setup_.id,
                 descriptor.opcode);
  }
  TANDEM_TRACE(operation_end, setup_.id, descriptor.tag, status, completion ? completion->done : 0);
}

Queue::Batch Queue::run(std::uint32_t pending, std::uint64_t budget, Executor& executor) {
  const std::uint32_t count = std::min(pending, kBatch);
  constexpr std::uint32_t kAhead = 8;
  for (std::uint32_t i = 1; i < std::min(count, kAhead); ++i) prefetch_descriptor(head_ + i);
  for (std::uint32_t i = 2; i < count; i += 2) prefetch_completion(completed_ + i);

  Batch batch;
  QueueCounters::Values more;
  pcie::EndpointStats before;
  bool counting = false;  // from the first operation that is not ours
  bool looked = false;    // at the clock, when the operation before ended
  std::uint64_t unserved = 0;
  for (std::uint32_t i = 0; i < count && batch.cost < budget; ++i) {
    if (i + kAhead < count) prefetch_descriptor(head_ + kAhead);
    const Words words = load_words(head_);
    ++head_;
    ++batch.operations;
    std::uint64_t cost = kOperationCost;
    if (Opcode::get(words[kFirst]) == TANDEM_OP_NOP) {
      const bool clean =
          words[kFirst] == TANDEM_OP_NOP && (words[kReserved0] | words[kReserved1]) == 0;
      stage({words[kTag], 0, 0,
             LastStatus::make(clean ? TANDEM_STATUS_OK : TANDEM_STATUS_BAD_DESCRIPTOR)});
      ++more.operations;
      TANDEM_TRACE(nop, setup_.id, words[kTag], setup_.mm->pasid().value);
    } else {
      const auto descriptor = std::bit_cast<tandem_descriptor>(words);
      if (staged_count_ != 0) publish();
      if (!std::exchange(counting, true)) before = pcie::Endpoint::thread_stats();
      bool timed = budget != kUnlimited && to_be_timed(descriptor);
      if (timed && !looked) executor.looked = std::chrono::steady_clock::now();
      TANDEM_TRACE(operation_begin, setup_.id, descriptor.opcode, setup_.mm->pasid().value,
                   setup_.device->endpoint().id().value);
      const std::optional<Completion> completion = executor.execute(*this, descriptor);
      trace_end(descriptor, completion);
      if (!completion) {
        batch.lost = true;
        return batch;
      }
      cost += completion->bytes_zero_copy + completion->bytes_copied;
      if (!as_expected(*completion)) {
        timed = budget != kUnlimited;
        wary_ = kWary;
      } else if (wary_ != 0) {
        --wary_;
      }
      looked = timed;
      if (timed) {
        const auto now = std::chrono::steady_clock::now();
        const auto took = static_cast<std::uint64_t>((now - executor.looked).count());
        cost = std::max(cost, took * kCostPerNanosecond);
        executor.looked = now;
      }
      account(*completion, descriptor, more);
      if (dead()) {  // its requests died with it; their cost did not
        batch.cost += cost;
        break;
      }
      stage(answer(*completion, descriptor.tag));
      publish();
      unserved += cost;
      if (unserved >= kWaiterCost) {
        serve_waiter();
        unserved = 0;
      }
    }
    batch.cost += cost;
  }
  if (staged_count_ != 0) publish();
  serve_waiter();
  if (counting) {
    const pcie::EndpointStats after = pcie::Endpoint::thread_stats();
    more.translations = after.translations - before.translations;
    more.translation_hits = after.atc_hits - before.atc_hits;
  }
  counters_.add(more);
  return batch;
}

/// Wakes the client if it said that it sleeps.
///
/// Ordering: the fence stands between the completions' last words and the load of `waiting`; the
///           client's stands between its store of `waiting` and its last look at the ring.
void Queue::serve_waiter() {
  full_fence();
  const std::uint32_t how = std::atomic_ref(doorbell_->waiting).load(std::memory_order_relaxed);
  if (how != TANDEM_WAIT_NONE) wake_client(how);
}

void Queue::wake_client(std::uint32_t how) {
  TANDEM_TRACE(wake_client, setup_.id, setup_.mm->pasid().value, how);
  if (how == TANDEM_WAIT_FUTEX) {
    std::atomic_ref(doorbell_->event).fetch_add(1, std::memory_order_release);
    futex_wake(reinterpret_cast<std::atomic<std::uint32_t>&>(doorbell_->event), INT_MAX);
  } else if (how == TANDEM_WAIT_FD) {
    const int fd = event_fd_.load(std::memory_order_acquire);
    const char byte = 1;
    // A full buffer means that the other end is readable already; a closed one that nobody cares.
    if (fd >= 0) (void)::send(fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
}

}  // namespace tandem::uacce::detail
