// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tandem/base/result.hpp"

/// Reports of grace periods that a reader holds up.
///
/// A grace period that has waited for longer than a limit reports who keeps it, then goes on
/// waiting, and reports again each time the wait has doubled. The program goes on.
///
/// Spec: Linux kernel documentation, "Using RCU's CPU Stall Detector".
namespace tandem::rcu {

/// One reader that holds up a grace period.
struct stalled_reader {
  pid_t thread = 0;           ///< the kernel's number of the thread
  std::uint32_t nesting = 0;  ///< sections entered and not left; 1023 for more
  /// Return addresses, innermost first; empty unless stall_options::signal is set and the thread
  /// answered within 100 ms.
  std::span<void* const> stack;
};

struct stall_report {
  std::chrono::nanoseconds age{};  ///< since the grace period began
  unsigned report = 0;             ///< of this grace period, from 1
  bool expedited = false;
  std::uint64_t waiting_words = 0;  ///< backlog behind it, as domain_stats
  std::uint64_t waiting_bytes = 0;
  std::span<const stalled_reader> readers;  ///< the first 16 of them
};

struct stall_options {
  std::chrono::nanoseconds limit = std::chrono::seconds(21);
  std::chrono::nanoseconds expedited_limit = std::chrono::milliseconds(20);
  /// Called on the thread that drives the grace period, with none of this module's locks held; the
  /// report is valid until it returns. It must not wait for a grace period. Null: one line per
  /// report and reader on standard error.
  void (*handler)(const stall_report& report) = nullptr;
  /// A signal that readers' threads may be sent so that they tell their stack; 0: none. Its handler
  /// passes every signal that was not ours on to the handler that the program had set before.
  int signal = 0;
};

/// Replaces the options of all domains of the process.
///
/// Errors:        EINVAL for limits that are not positive or a signal that cannot be caught; the
///                errno of sigaction().
/// Thread safety: any thread; grace periods under way take the change up at their next report.
Result<void> set_stall_options(const stall_options& options);

/// Writes `report` to standard error, with symbol names where they are known: the default handler.
/// Thread safety: any thread.
void print_stall_report(const stall_report& report);

namespace detail {
std::chrono::nanoseconds stall_limit(bool expedited) noexcept;
}

}  // namespace tandem::rcu
