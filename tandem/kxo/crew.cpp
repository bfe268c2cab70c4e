// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/detail/crew.hpp"

#include <unistd.h>

#include <algorithm>
#include <climits>

#include "tandem/base/background_thread.hpp"
#include "tandem/base/check.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/base/field.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/base/planted_fault.hpp"

namespace tandem::kxo::detail {
namespace {

using Inside = Field<5, 0>;  // helpers
using Open = Field<6>;
using Awaited = Field<7>;  // the caller sleeps until nobody is inside
using Ended = Field<8>;
using Round = Field<31, 9>;  // the number of the task; one that is as old as all of them is missed

constexpr auto kOne = static_cast<std::uint32_t>(Inside::make(1));
constexpr int kSpins = 200;  // a few microseconds, which a helper may need to see that it is time

}  // namespace

Crew::Crew(unsigned helpers, const char* name, Task task, void* context)
    : name_(name), task_(task), context_(context), helpers_(helpers) {
  TANDEM_CHECK(helpers <= kMostHelpers);
  for (unsigned i = 0; i < helpers; ++i) {
    helpers_[i].crew = this;
    helpers_[i].number = i + 1;
  }
}

Crew::~Crew() {
  close();
  wait();
  if (process_ != ::getpid()) return;
  state_.store(static_cast<std::uint32_t>(Ended::kMask), std::memory_order_release);
  futex_wake(state_, INT_MAX);
  for (const Helper& helper : helpers_) {
    if (helper.runs) ::pthread_join(helper.thread, nullptr);
  }
}

void Crew::open() noexcept {
  if (helpers_.empty()) return;
  forget_parents_threads();
  const std::uint32_t state = state_.load(std::memory_order_relaxed);
  const std::uint64_t opened = Round::make(Round::get(state) + 1) | Open::make(1);
  state_.store(static_cast<std::uint32_t>(opened), std::memory_order_release);  // (A)
  futex_wake(state_, INT_MAX);
  start_helpers();
}

void Crew::start_helpers() noexcept {
  for (Helper& helper : helpers_) {
    if (helper.runs) continue;
    if (start_background_thread(helper.thread, name_, 0, run, &helper) != 0) return;
    helper.runs = true;
  }
}

void Crew::forget_parents_threads() noexcept {
  const pid_t process = ::getpid();
  if (process_ == process) return;
  process_ = process;
  for (Helper& helper : helpers_) helper.runs = false;
  state_.store(0, std::memory_order_relaxed);
}

void Crew::close() noexcept {
  state_.fetch_and(~static_cast<std::uint32_t>(Open::kMask), std::memory_order_relaxed);
}

/// A helper is inside from when it raises the count of an open state, (A), until it lowers it, (B).
/// Closing and the count are in one word: once it is closed, nobody raises it.
void Crew::wait() noexcept {
  static const bool early = planted_fault("kxo-leave-helper-inside");
  for (int i = 0; !early; ++i) {
    std::uint32_t state = state_.load(std::memory_order_acquire);  // (B)
    if (Inside::get(state) == 0) break;
    if (i < kSpins) {
      cpu_pause();
      continue;
    }
    if (process_ != ::getpid()) return forget_parents_threads();
    const auto awaited = state | static_cast<std::uint32_t>(Awaited::kMask);
    if (state != awaited && !state_.compare_exchange_strong(state, awaited)) continue;
    futex_wait(state_, awaited);
  }
}

void* Crew::run(void* helper) {
  auto* const self = static_cast<Helper*>(helper);
  self->crew->work(self->number);
  return nullptr;
}

void Crew::work(unsigned number) noexcept {
  std::uint64_t done = 0;  // the last round
  for (;;) {
    std::uint32_t state = state_.load(std::memory_order_acquire);
    if (Ended::get(state) != 0) return;
    if (Open::get(state) == 0 || Round::get(state) == done) {
      futex_wait(state_, state);
      continue;
    }
    if (!state_.compare_exchange_weak(state, state + kOne, std::memory_order_acquire)) {  // (A)
      continue;
    }
    done = Round::get(state);
    task_(context_, number);
    state = state_.fetch_sub(kOne, std::memory_order_release) - kOne;  // (B)
    if (Inside::get(state) == 0 && Awaited::get(state) != 0) futex_wake(state_, INT_MAX);
  }
}

}  // namespace tandem::kxo::detail
