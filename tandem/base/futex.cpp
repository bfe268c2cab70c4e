// SPDX-License-Identifier: Apache-2.0
#include "tandem/base/futex.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace tandem {

bool futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                std::optional<std::chrono::nanoseconds> timeout) noexcept {
  timespec limit{};
  if (timeout) {
    const auto count = timeout->count() < 0 ? 0 : timeout->count();
    limit.tv_sec = static_cast<std::time_t>(count / 1'000'000'000);
    limit.tv_nsec = static_cast<long>(count % 1'000'000'000);
  }
  const long result =
      ::syscall(SYS_futex, &word, FUTEX_WAIT, expected, timeout ? &limit : nullptr, nullptr, 0);
  return !(result != 0 && errno == ETIMEDOUT);
}

void futex_wake(const std::atomic<std::uint32_t>& word, int count) noexcept {
  ::syscall(SYS_futex, &word, FUTEX_WAKE, count, nullptr, nullptr, 0);
}

void nap(std::chrono::nanoseconds time) noexcept {
  const std::atomic<std::uint32_t> unchanged{0};
  futex_wait(unchanged, 0, time);
}

}  // namespace tandem
