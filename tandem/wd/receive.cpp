// SPDX-License-Identifier: Apache-2.0
/// Context: from completions to requests, and the end of a queue.
#include <atomic>
#include <bit>
#include <cerrno>

#include "tandem/trace/trace.hpp"
#include "tandem/wd/detail/context.hpp"

namespace tandem::wd::detail {
namespace {

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

}  // namespace tandem::wd::detail
