// SPDX-License-Identifier: Apache-2.0
#include "tandem/wd/detail/context.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <ctime>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/trace/trace.hpp"
#include "tandem/wd/detail/memory.hpp"

namespace tandem::wd::detail {
namespace {

// How many descriptors ahead to fetch for writing: their lines are still in the engine's cache.
constexpr std::uint64_t kPrefetch = 8;
// Empty polls between two looks at whether the broker lives, when nobody holds the engine awake.
constexpr std::uint32_t kPollsBetweenChecks = 1u << 20;

static_assert(std::endian::native == std::endian::little);

/// The last word of a completion, which the engine writes last.
struct Verdict {
  explicit Verdict(std::uint64_t word)
      : done(static_cast<std::uint32_t>(word)),
        status(static_cast<std::uint16_t>(word >> 32)),
        flags(static_cast<std::uint16_t>(word >> 48)) {}
  std::uint32_t done;
  std::uint16_t status;
  std::uint16_t flags;
};

std::uint64_t load_verdict(tandem_completion& completion) {
  static_assert(offsetof(tandem_completion, done) == 24);
  auto* const word = reinterpret_cast<std::uint64_t*>(&completion) + 3;
  return std::atomic_ref(*word).load(std::memory_order_acquire);  // (C)
}

bool has_phase(std::uint64_t verdict, std::uint64_t number, std::uint32_t depth) {
  const bool first_pass = (number & depth) == 0;  // passes 1, 3, 5, … over the ring
  return ((verdict >> 48) & TANDEM_CPL_PHASE) == (first_pass ? TANDEM_CPL_PHASE : 0u);
}

std::uint64_t word_of(std::uint32_t low, std::uint32_t high) {
  return low | std::uint64_t{high} << 32;
}
std::uint64_t word_of(std::uint16_t first, std::uint16_t second, std::uint32_t high) {
  return word_of(first | std::uint32_t{second} << 16, high);
}
static_assert(offsetof(tandem_descriptor, param) == 4 && offsetof(tandem_descriptor, src) == 8 &&
              offsetof(tandem_descriptor, dst_len) == 28 && offsetof(tandem_descriptor, tag) == 40);

/// Writes what `request` asks for, as whole words straight to their place: fields put together on
/// the stack and copied from there would wait for the narrow stores.
inline void put_descriptor(tandem_descriptor& to, const wd_request& request, std::uint64_t number) {
  auto* const words = reinterpret_cast<std::uint64_t*>(&to);
  words[0] = word_of(request.opcode, request.flags, request.param);
  words[1] = reinterpret_cast<std::uint64_t>(request.src);
  words[2] = reinterpret_cast<std::uint64_t>(request.dst);
  words[3] = word_of(request.src_len, request.dst_len);
  words[4] = request.operand;
  words[5] = number;
  words[6] = 0;
  words[7] = 0;
}

constexpr std::uint16_t without_phase(std::uint16_t flags) {
  return flags & static_cast<std::uint16_t>(~TANDEM_CPL_PHASE);
}

void fill_results(wd_request& request, const tandem_completion& completion) {
  request.status = completion.status;
  request.result_flags = without_phase(completion.flags);
  request.done = completion.done;
  request.result = completion.result;
  request.fault_address = completion.fault_address;
}

std::uint64_t load(std::uint64_t& word) {
  return std::atomic_ref(word).load(std::memory_order_relaxed);
}

}  // namespace

Context::Context(Process& process, Parameters parameters, std::shared_ptr<Connection> connection)
    : word_(&process.word()),
      serial_(process.enter_context(this)),
      generation_(process.generation()),
      process_(process),
      parameters_(std::move(parameters)),
      connection_(std::move(connection)),
      transport_(connection_->transport()),
      reserved_(process.reservations(), *connection_),
      pool_(process.reservations(), connection_),
      can_spin_(usable_cpus() > 1) {
  connection_->add_queue();
}

Context::~Context() {
  if (opened_) (void)transport_.put(granted_.queue);
  process_.ledger().close(epoll_);
  process_.ledger().close(event_);
  process_.leave_context(serial_);
  pool_.clear();
  process_.leave(*connection_);
}

Result<std::unique_ptr<Context>> Context::open(Process& process, Parameters parameters) {
  auto connection = process.connect(parameters.route);
  if (!connection) return Unexpected{connection.error()};
  std::unique_ptr<Context> context(
      new Context(process, std::move(parameters), std::move(*connection)));
  if (auto ready = context->set_up(); !ready) return Unexpected{ready.error()};
  return context;
}

Result<void> Context::set_up() {
  auto granted = transport_.open(parameters_.algorithm, parameters_.depth);
  if (!granted) {
    return granted.error().value() == ENOENT ? errno_error(ENODEV) : Unexpected{granted.error()};
  }
  granted_ = *granted;
  opened_ = true;
  depth_ = granted_.depth;
  if (!std::has_single_bit(depth_) || depth_ < TANDEM_MIN_DEPTH || depth_ > TANDEM_MAX_DEPTH ||
      granted_.region_mmio_size < sizeof(tandem_doorbell) ||
      granted_.region_dus_size < tandem_rings_size(depth_)) {
    return errno_error(EPROTO);
  }
  const auto map_region = [this](tandem_region region, std::uint64_t size) -> Result<Mapping> {
    auto fd = transport_.map(granted_.queue, region, size);
    if (!fd) return Unexpected{fd.error()};
    return map_shared(fd->get(), size);
  };
  auto doorbell = map_region(TANDEM_REGION_MMIO, granted_.region_mmio_size);
  if (!doorbell) return Unexpected{doorbell.error()};
  auto rings = map_region(TANDEM_REGION_DUS, granted_.region_dus_size);
  if (!rings) return Unexpected{rings.error()};
  doorbell_page_ = std::move(*doorbell);
  rings_ = std::move(*rings);

  doorbell_ = reinterpret_cast<tandem_doorbell*>(doorbell_page_.data());
  descriptors_ = reinterpret_cast<tandem_descriptor*>(rings_.data());
  completions_ = reinterpret_cast<tandem_completion*>(descriptors_ + depth_);
  mask_ = depth_ - 1;
  table_ = std::make_unique<wd_request*[]>(depth_);
  ready_ = std::make_unique<wd_request*[]>(depth_);
  in_caller_ = transport_.runs_in_caller();
  stages_all_ = !transport_.reaches_ordinary_memory();
  return transport_.start(granted_.queue);
}

// Sending.

bool Context::in_flight_elsewhere(const wd_request& request) {
  return request.opaque[0] == serial_ || process_.context_lives(request.opaque[0]);
}

bool Context::accepts(wd_request& request) {
  // A mark that no live queue has made is left over from a queue that was released, from the parent
  // of a fork, or was never cleared: all fine.
  return request.opaque[0] == 0 || !in_flight_elsewhere(request);
}

void Context::write_descriptor(wd_request& request, const StagedRequest* staged) {
  const std::uint64_t slot = submitted_ & mask_;
  put_descriptor(descriptors_[slot], staged == nullptr ? request : staged->redirected(request),
                 submitted_);
  table_[slot] = &request;
  request.opaque[0] = serial_;
  request.opaque[1] = submitted_;
  TANDEM_TRACE(queue_submit, granted_.queue, submitted_);
  ++submitted_;
}

unsigned Context::submit_plain(wd_request* const* requests, unsigned count) {
  if (stages_all_) return 0;
  // Local copies: for all the compiler knows, a store to a request could change a member.
  const unsigned most = std::min(count, depth_ - in_flight_);
  tandem_descriptor* const descriptors = descriptors_;
  wd_request** const table = table_.get();
  const std::uint64_t serial = serial_;
  const std::uint64_t mask = mask_;
  std::uint64_t number = submitted_;
  unsigned taken = 0;
  for (; taken < most; ++taken, ++number) {
    wd_request* const request = requests[taken];
    if (request == nullptr || request->opaque[0] != 0 ||
        request->opcode == TANDEM_OP_INFLATE_STREAM) [[unlikely]]
      break;
    prefetch_for_write(&descriptors[(number + kPrefetch) & mask]);
    put_descriptor(descriptors[number & mask], *request, number);
    table[number & mask] = request;
    request->opaque[0] = serial;
    request->opaque[1] = number;
    TANDEM_TRACE(queue_submit, granted_.queue, number);
  }
  submitted_ = number;
  in_flight_ += taken;
  return taken;
}

int Context::submit(wd_request* request) {
  if (request == nullptr || !accepts(*request)) return -EINVAL;
  if (in_flight_ == depth_) return -EBUSY;
  const bool stream = request->opcode == TANDEM_OP_INFLATE_STREAM;
  if (stream && streaming_) return -EBUSY;
  if (stages_all_ && needs_staging_at_once(*request)) {
    if (const int error = send_staged(*request); error != 0) return error;
  } else {
    write_descriptor(*request, nullptr);
    ++in_flight_;
  }
  streaming_ = streaming_ || stream;
  return 0;
}

void Context::ring_doorbell() {
  TANDEM_TRACE(doorbell, granted_.queue, submitted_);
  std::atomic_ref(doorbell_->tail)
      .store(static_cast<std::uint32_t>(submitted_), std::memory_order_release);  // (T)
  full_fence();                                                                   // (P)
  if (std::atomic_ref(doorbell_->parked).load(std::memory_order_relaxed) != 0) [[unlikely]] {
    TANDEM_TRACE(wake, granted_.queue, submitted_);
    transport_.wake();
  }
}

int Context::send(wd_request* const* requests, unsigned count) {
  if (dead_ || load_state() != TANDEM_QUEUE_ALIVE) [[unlikely]]
    return -ESHUTDOWN;
  const std::uint64_t first = submitted_;
  int error = 0;
  unsigned taken = submit_plain(requests, count);
  while (taken < count && error == 0) {
    error = submit(requests[taken]);
    if (error == 0) ++taken;
  }
  if (submitted_ != first) ring_doorbell();
  return taken != 0 ? static_cast<int>(taken) : error;
}

bool Context::needs_staging_at_once(const wd_request& request) {
  const auto outside = [this](const void* pointer, std::uint32_t length) {
    const auto address = reinterpret_cast<std::uint64_t>(pointer);
    return length != 0 && StagedRequest::sensible(address, length) &&
           !reserved_.contains(address, length);
  };
  return ((request.opcode & TANDEM_OP_SRC_IN) != 0 && outside(request.src, request.src_len)) ||
         ((request.opcode & (TANDEM_OP_DST_IN | TANDEM_OP_DST_OUT)) != 0 &&
          outside(request.dst, request.dst_len));
}

int Context::send_staged(wd_request& request) {
  auto staged = StagedRequest::start(request, reserved_, pool_);
  if (!staged) return staging_.empty() ? -staged.error().value() : -EBUSY;
  process_.staged.fetch_add(1, std::memory_order_relaxed);
  ++in_flight_;
  if (staged->failed()) {
    staged->fill_failure(request);
    pool_.give_back(staged->buffer());
    request.opaque[0] = serial_;
    push_ready(request);
    return 0;
  }
  write_descriptor(request, &*staged);
  staging_.emplace(&request, *staged);
  return 0;
}

int Context::cancel(const wd_request& request) {
  const std::uint64_t number = request.opaque[1];
  const bool submitted = request.opaque[0] == serial_ && number - completed_ < outstanding() &&
                         table_[number & mask_] == &request;
  if (!submitted) return -ENOENT;
  // The engine copies a descriptor once. Either it has, and this store comes too late, or it finds
  // an operation that nobody has and does nothing.
  std::atomic_ref(descriptors_[number & mask_].opcode)
      .store(TANDEM_OP_INVALID, std::memory_order_relaxed);
  return 0;
}

// Receiving.

unsigned Context::reap_plain(wd_request** requests, unsigned capacity) {
  if (dead_ || !staging_.empty()) [[unlikely]]
    return 0;
  tandem_completion* const completions = completions_;
  wd_request* const* const table = table_.get();
  const std::uint64_t mask = mask_;
  const std::uint32_t depth = depth_;
  const std::uint64_t end = submitted_;
  std::uint64_t number = completed_;
  unsigned got = 0;
  for (; got < capacity && number != end; ++got, ++number) {
    tandem_completion& slot = completions[number & mask];
    const std::uint64_t word = load_verdict(slot);
    if (!has_phase(word, number, depth)) break;
    const Verdict verdict(word);
    wd_request& request = *table[number & mask];
    if (verdict.status != TANDEM_STATUS_OK || load(slot.tag) != number ||
        request.opcode == TANDEM_OP_INFLATE_STREAM) [[unlikely]]
      break;
    request.status = TANDEM_STATUS_OK;
    request.result_flags = without_phase(verdict.flags);
    request.done = verdict.done;
    request.result = load(slot.result);
    request.fault_address = load(slot.fault_address);
    request.opaque[0] = 0;
    requests[got] = &request;
    TANDEM_TRACE(queue_complete, granted_.queue, number, TANDEM_STATUS_OK);
  }
  if (got == 0) return 0;
  completed_ = number;
  in_flight_ -= got;
  empty_polls_ = 0;
  if (armed_) [[unlikely]]
    store_waiting(TANDEM_WAIT_NONE);
  return got;
}

wd_request* Context::reap() {
  if (dead_) [[unlikely]]
    return reap_lost();
  while (submitted_ != completed_) {
    tandem_completion& slot = completions_[completed_ & mask_];
    const std::uint64_t word = load_verdict(slot);
    if (!has_phase(word, completed_, depth_)) return nullptr;
    const Verdict verdict(word);
    const std::uint64_t tag = load(slot.tag);
    if (tag != completed_) [[unlikely]] {
      dead_ = true;
      TANDEM_TRACE(queue_death, granted_.queue, tag);
      return reap_lost();
    }
    wd_request& request = *table_[completed_ & mask_];
    ++completed_;
    tandem_completion completion{tag,          load(slot.fault_address), load(slot.result),
                                 verdict.done, verdict.status,           verdict.flags};
    if (!finish_detour(request, completion)) continue;
    fill_results(request, completion);
    TANDEM_TRACE(queue_complete, granted_.queue, tag, completion.status);
    return &request;
  }
  return nullptr;
}

bool Context::finish_detour(wd_request& request, tandem_completion& completion) {
  if (completion.status == TANDEM_STATUS_UNKNOWN_OPCODE && request.opcode != TANDEM_OP_INVALID) {
    auto& opcode = descriptors_[(completed_ - 1) & mask_].opcode;
    if (std::atomic_ref(opcode).load(std::memory_order_relaxed) == TANDEM_OP_INVALID) {
      completion.status = TANDEM_STATUS_CANCELLED;
    }
  }
  if (const auto staged = staging_.find(&request); staged != staging_.end()) {
    staged->second.finish(request, completion);
    pool_.give_back(staged->second.buffer());
    staging_.erase(staged);
    return true;
  }
  if (completion.status != TANDEM_STATUS_NEEDS_STAGING) return true;

  auto staged = StagedRequest::start(request, reserved_, pool_);
  if (!staged || (staged->buffer().data == nullptr && !staged->failed())) {
    return true;  // no room, or nothing to copy: the caller learns what the engine said
  }
  process_.staged.fetch_add(1, std::memory_order_relaxed);
  if (staged->failed()) {
    staged->fill_failure(request);
    pool_.give_back(staged->buffer());
    completion.status = request.status;
    completion.done = request.done;
    completion.result = 0;
    completion.fault_address = request.fault_address;
    return true;
  }
  write_descriptor(request, &*staged);  // into the slot that this completion has freed, or later
  staging_.emplace(&request, *staged);
  ring_doorbell();
  return false;
}

wd_request* Context::reap_lost() {
  if (submitted_ == completed_) return nullptr;
  wd_request* const request = table_[completed_ & mask_];
  ++completed_;
  if (const auto staged = staging_.find(request); staged != staging_.end()) {
    // Its buffer goes with the queue: an engine may still be at work in it.
    staging_.erase(staged);
  }
  request->status = TANDEM_STATUS_DEVICE_LOST;
  request->result_flags = 0;
  request->done = 0;
  request->result = 0;
  request->fault_address = 0;
  return request;
}

wd_request* Context::reap_thoroughly() {
  if (wd_request* const request = reap(); request != nullptr) return request;
  if (submitted_ == completed_) return nullptr;
  if (in_caller_) {
    // A staged request is submitted by reap() and run by the next turn.
    for (std::uint64_t before = completed_ - 1; before != completed_ && !dead_;) {
      before = completed_;
      transport_.run_in_caller(granted_.queue);
      if (wd_request* const request = reap(); request != nullptr) return request;
    }
  }
  return died() ? reap() : nullptr;
}

bool Context::died() {
  if (dead_) return true;
  if (load_state() == TANDEM_QUEUE_ALIVE) return false;  // (S)
  // What completed before the end still counts: reap() goes on with it and marks the rest as lost
  // once the ring is empty.
  if (completion_waits()) return true;
  dead_ = true;
  TANDEM_TRACE(queue_death, granted_.queue, load_state());
  return true;
}

bool Context::completion_waits() const {
  return submitted_ != completed_ &&
         has_phase(load_verdict(completions_[completed_ & mask_]), completed_, depth_);
}

std::uint32_t Context::load_state() const {
  return std::atomic_ref(doorbell_->state).load(std::memory_order_acquire);
}

void Context::push_ready(wd_request& request) {
  ready_[(ready_head_ + ready_count_) & mask_] = &request;
  ++ready_count_;
}

wd_request* Context::pop_ready() {
  wd_request* const request = ready_[ready_head_ & mask_];
  ++ready_head_;
  --ready_count_;
  return request;
}

int Context::deliver(wd_request* request, wd_request** out) {
  --in_flight_;
  request->opaque[0] = 0;
  if (armed_) [[unlikely]]
    store_waiting(TANDEM_WAIT_NONE);
  if (request->opcode == TANDEM_OP_INFLATE_STREAM) [[unlikely]]
    streaming_ = false;
  empty_polls_ = 0;
  *out = request;
  return 1;
}

int Context::receive(wd_request** request) {
  if (ready_count_ != 0) [[unlikely]]
    return deliver(pop_ready(), request);
  if (completion_waits()) {
    if (reap_plain(request, 1) != 0) return 1;
  } else {
    if ((++empty_polls_ % kPollsBetweenChecks) == 0 && holds_ == 0 && !transport_.alive()) {
      dead_ = true;
    }
    // Nothing yet from an engine that lives: the poll that has to be quick.
    if (!in_caller_ && !dead_ && load_state() == TANDEM_QUEUE_ALIVE) [[likely]]
      return -EAGAIN;
  }
  if (wd_request* const got = reap_thoroughly(); got != nullptr) return deliver(got, request);
  return in_flight_ == 0 && died() ? -ESHUTDOWN : -EAGAIN;
}

int Context::receive_batch(wd_request** requests, unsigned capacity) {
  unsigned got = 0;
  for (; got < capacity && ready_count_ != 0; ++got) (void)deliver(pop_ready(), requests + got);
  got += reap_plain(requests + got, capacity - got);
  while (got < capacity) {
    wd_request* const request = reap();
    if (request == nullptr) break;
    (void)deliver(request, requests + got);
    ++got;
    got += reap_plain(requests + got, capacity - got);
  }
  return got != 0 ? static_cast<int>(got) : receive(requests);
}

int Context::receive_sync(wd_request** request) {
  for (;;) {
    if (ready_count_ != 0) return deliver(pop_ready(), request);
    if (wd_request* const got = reap_thoroughly(); got != nullptr) return deliver(got, request);
    if (in_flight_ == 0) return died() ? -ESHUTDOWN : -ENOMSG;
    if (!spin()) sleep_until_something_happens();
  }
}

void Context::flush() {
  for (;;) {
    while (wd_request* const request = reap_thoroughly()) push_ready(*request);
    if (outstanding() == 0) return;
    if (!spin()) sleep_until_something_happens();
  }
}

/// Returns whether the engine is up, which it soon is, unless something is wrong with it.
bool Context::await_engine() {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  while (std::atomic_ref(doorbell_->parked).load(std::memory_order_acquire) != 0 && !died()) {
    transport_.wake();
    if (std::chrono::steady_clock::now() > deadline) return false;
    ::timespec pause{0, 50'000};
    ::nanosleep(&pause, nullptr);
  }
  return true;
}

int Context::hold(bool keep_awake) {
  if (!keep_awake && holds_ == 0) return -EINVAL;
  const bool changes = keep_awake ? holds_ == 0 : holds_ == 1;
  if (changes) {
    if (auto held = transport_.hold(granted_.queue, keep_awake); !held) {
      return -held.error().value();
    }
  }
  if (keep_awake && !in_caller_ && !await_engine()) {  // a hold is a promise
    if (changes) (void)transport_.hold(granted_.queue, false);
    return -ETIMEDOUT;
  }
  holds_ += keep_awake ? 1 : -1;
  return 0;
}

}  // namespace tandem::wd::detail
