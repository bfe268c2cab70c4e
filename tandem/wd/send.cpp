// SPDX-License-Identifier: Apache-2.0
/// Context: from requests to descriptors, and the doorbell.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/trace/trace.hpp"
#include "tandem/wd/detail/context.hpp"

namespace tandem::wd::detail {
namespace {

// How many descriptors ahead to fetch for writing: their lines are still in the engine's cache.
constexpr std::uint64_t kPrefetch = 8;

static_assert(std::endian::native == std::endian::little);

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

}  // namespace

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

}  // namespace tandem::wd::detail
