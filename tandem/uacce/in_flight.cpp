// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/in_flight.hpp"

#include <algorithm>
#include <ctime>
#include <thread>

namespace tandem::uacce::detail {
namespace {

/// Some milliseconds behind steady_clock, at a fifth of the price: every access asks.
std::int64_t now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
  return std::chrono::nanoseconds(std::chrono::seconds(time.tv_sec)).count() + time.tv_nsec;
}

}  // namespace

InFlight::Scope::~Scope() {
  if (slot_ != nullptr) slot_->store(0, std::memory_order_release);
}

InFlight::Scope InFlight::enter() {
  if (cancelled()) return Scope(nullptr);
  static std::atomic<std::size_t> threads{0};
  thread_local const std::size_t first = threads.fetch_add(1, std::memory_order_relaxed);
  const std::int64_t start = now();
  for (std::size_t i = 0; i < kSlots; ++i) {
    auto& slot = started_[(first + i) % kSlots];
    std::int64_t expected = 0;
    if (!slot.compare_exchange_strong(expected, start, std::memory_order_seq_cst)) continue;  // (A)
    Scope scope(&slot);
    return closed_.load(std::memory_order_seq_cst) ? Scope(nullptr) : std::move(scope);  // (A)
  }
  return Scope(nullptr);
}

void InFlight::close() { closed_.store(true, std::memory_order_seq_cst); }  // (B)

bool InFlight::older_than(std::chrono::milliseconds age) const {
  const std::int64_t limit =
      now() - std::chrono::duration_cast<std::chrono::nanoseconds>(age).count();
  return std::any_of(started_.begin(), started_.end(), [&](const auto& slot) {
    const std::int64_t start = slot.load(std::memory_order_relaxed);
    return start != 0 && start < limit;
  });
}

bool InFlight::idle() const {
  return std::all_of(started_.begin(), started_.end(), [](const auto& slot) {
    return slot.load(std::memory_order_seq_cst) == 0;  // (B)
  });
}

bool InFlight::wait_idle(std::chrono::milliseconds timeout) const {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!idle()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  return true;
}

}  // namespace tandem::uacce::detail
