// SPDX-License-Identifier: Apache-2.0
/// Context: waiting for completions by spinning, on a futex, and through a descriptor.
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/trace/trace.hpp"
#include "tandem/wd/detail/context.hpp"

namespace tandem::wd::detail {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::nanoseconds;

constexpr nanoseconds kLeastSpin{50'000};
constexpr nanoseconds kMostSpin{200'000};
// When completions usually take longer than any spin would last, a short one is all that is tried.
constexpr nanoseconds kHopelessSpin{5'000};
// Looks at the ring before the first look at the clock, and between two.
constexpr int kLooksPerClockRead = 256;
// A sleeper looks at this interval whether its queue and its broker still live.
constexpr std::chrono::milliseconds kCheckInterval{200};

}  // namespace

void Context::store_waiting(std::uint32_t value) {
  std::atomic_ref(doorbell_->waiting).store(value, std::memory_order_relaxed);
  if (value != TANDEM_WAIT_NONE) full_fence();  // (W)
  armed_ = value == TANDEM_WAIT_FD;
}

void Context::learn(nanoseconds gap) { usual_gap_ += (gap - usual_gap_) / 8; }

/// Looks at the ring for as long as that usually pays. Returns whether there is something to do.
bool Context::spin() {
  if (!can_spin_ || in_caller_) return false;
  for (int look = 0; look < kLooksPerClockRead; ++look) {
    if (completion_waits()) return true;
    cpu_pause();
  }
  const nanoseconds budget =
      usual_gap_ > kMostSpin ? kHopelessSpin : std::clamp(2 * usual_gap_, kLeastSpin, kMostSpin);
  const auto start = Clock::now();
  for (auto now = start; now - start < budget; now = Clock::now()) {
    for (int look = 0; look < kLooksPerClockRead; ++look) {
      if (completion_waits()) {
        learn(now - start);
        return true;
      }
      cpu_pause();
    }
    if (load_state() != TANDEM_QUEUE_ALIVE) return true;
  }
  return false;
}

void Context::sleep_until_something_happens() {
  const auto start = Clock::now();
  auto& event = *reinterpret_cast<std::atomic<std::uint32_t>*>(&doorbell_->event);
  const std::uint32_t seen = event.load(std::memory_order_acquire);
  store_waiting(TANDEM_WAIT_FUTEX);
  bool woken = true;
  if (!completion_waits() && load_state() == TANDEM_QUEUE_ALIVE) {
    TANDEM_TRACE(wait_begin, granted_.queue, 0);
    woken = futex_wait(event, seen, kCheckInterval);
    TANDEM_TRACE(wait_end, granted_.queue, 0);
  }
  store_waiting(TANDEM_WAIT_NONE);
  if (!woken && !transport_.alive() && !completion_waits()) dead_ = true;
  learn(std::min<nanoseconds>(Clock::now() - start, 2 * kMostSpin));
}

int Context::event_descriptor() {
  if (epoll_ >= 0) return epoll_;
  if (event_ < 0) {  // given once: kept, should the rest fail
    auto event = transport_.event(granted_.queue);
    if (!event) return -event.error().value();
    event_ = process_.ledger().add(std::move(*event));
  }
  UniqueFd both(::epoll_create1(EPOLL_CLOEXEC));
  if (!both) return -errno;
  epoll_event readable{};
  readable.events = EPOLLIN;
  if (::epoll_ctl(both.get(), EPOLL_CTL_ADD, event_, &readable) != 0) return -errno;
  // The end of the broker makes it readable too: nobody is left to signal the event.
  epoll_event hangup{};
  hangup.events = EPOLLRDHUP;
  const int other_side = transport_.hangup_descriptor();
  if (other_side >= 0 && ::epoll_ctl(both.get(), EPOLL_CTL_ADD, other_side, &hangup) != 0) {
    return -errno;
  }
  epoll_ = process_.ledger().add(std::move(both));
  return epoll_;
}

int Context::arm() {
  if (const int fd = event_descriptor(); fd < 0) return fd;
  if (ready_count_ != 0) return 1;
  // Whatever the other side signals with, an eventfd or a stream: empty it.
  std::array<std::byte, 512> signals;
  while (::read(event_, signals.data(), signals.size()) == static_cast<ssize_t>(signals.size())) {
  }
  store_waiting(TANDEM_WAIT_FD);
  if (outstanding() != 0 && !transport_.alive()) dead_ = true;
  wd_request* const request = reap_thoroughly();
  if (request == nullptr && !died()) return 0;
  store_waiting(TANDEM_WAIT_NONE);
  if (request != nullptr) push_ready(*request);
  return 1;
}

}  // namespace tandem::wd::detail
