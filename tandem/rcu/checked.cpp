// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/checked.hpp"

#include <execinfo.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>

#include "tandem/base/planted_fault.hpp"
#include "tandem/rcu/detail/caller_state.hpp"

namespace tandem::rcu {
namespace {

constinit std::atomic<check_handler> chosen_handler{nullptr};

/// Whether this is the first report of the place. A full table lets everything more be printed.
bool first_report(const call_site& where) noexcept {
  static constinit std::array<std::atomic<std::uint64_t>, 256> seen{};
  std::uint64_t key = 1469598103934665603U;  // FNV-1a
  for (const char* c = where.file; *c != '\0'; ++c) {
    key = (key ^ static_cast<unsigned char>(*c)) * 1099511628211U;
  }
  key = ((key ^ where.line) * 1099511628211U) | 1;
  for (std::size_t i = 0; i < seen.size(); ++i) {
    std::atomic<std::uint64_t>& entry = seen[(key + i) % seen.size()];
    std::uint64_t expected = 0;
    if (entry.compare_exchange_strong(expected, key, std::memory_order_relaxed)) return true;
    if (expected == key) return false;
  }
  return true;
}

void write_report(const check_report& report) noexcept {
  if (!first_report(report.where)) return;
  ::dprintf(STDERR_FILENO, "tandem: suspicious RCU usage: %s:%u in %s: %s\n", report.where.file,
            report.where.line, report.where.function, report.what);
  ::backtrace_symbols_fd(report.stack.data(), static_cast<int>(report.stack.size()), STDERR_FILENO);
}

}  // namespace

check_handler set_check_handler(check_handler handler) noexcept {
  return chosen_handler.exchange(handler, std::memory_order_acq_rel);
}

namespace detail {

[[gnu::noinline]] void report_unprotected(const char* what, const call_site& where) noexcept {
  if (planted_fault("rcu-check-silent")) return;
  const NotCancelled guard;
  std::array<void*, 32> frames{};
  const int count = ::backtrace(frames.data(), static_cast<int>(frames.size()));
  // The innermost frame is this function.
  const std::size_t skipped = count > 1 ? 1 : 0;
  const check_report report{
      what, where, std::span(frames).subspan(skipped, static_cast<std::size_t>(count) - skipped)};
  const check_handler handler = chosen_handler.load(std::memory_order_acquire);
  (handler != nullptr ? handler : write_report)(report);
}

}  // namespace detail
}  // namespace tandem::rcu
