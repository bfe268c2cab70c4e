// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

namespace tandem {

/// Sleeps while `word` holds `expected`, until futex_wake() or the time-out. May return early.
///
/// Works across processes on shared memory.
/// Errors: false only after the time-out passed.
bool futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                std::optional<std::chrono::nanoseconds> timeout = std::nullopt) noexcept;

/// Wakes at most `count` sleepers on `word`.
void futex_wake(const std::atomic<std::uint32_t>& word, int count = 1) noexcept;

/// Sleeps for `time`; it may be less. For calls that are noexcept: unlike sleep_for() it is no
/// point where pthread_cancel() takes effect.
void nap(std::chrono::nanoseconds time) noexcept;

}  // namespace tandem
