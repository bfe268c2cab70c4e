// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/tandem/capture.hpp"
#include "tandem/base/result.hpp"

namespace tandem::cli {

/// A line of ftrace's `trace` file, if it is sched_switch, sched_wakeup or sched_wakeup_new.
/// Spec: Linux kernel documentation, "ftrace - Function Tracer", "Output format".
std::optional<SchedEvent> parse_sched_line(std::string_view line);

/// The scheduler's view of one process and what it starts, from an ftrace instance of our own.
///
/// Needs tracefs and the right to write there. Nobody else's tracing is changed; the instance is
/// removed at the end. Thread safety: one thread.
class SchedTracer {
 public:
  /// Errors: why not, for people.
  static Result<SchedTracer, std::string> start(pid_t process);
  SchedTracer(SchedTracer&& other) noexcept;
  SchedTracer& operator=(SchedTracer&&) = delete;
  ~SchedTracer();

  /// Stops, and takes what there is. `dropped` grows by what the kernel had no room for.
  std::vector<SchedEvent> finish(std::uint64_t& dropped);

 private:
  explicit SchedTracer(std::string instance) : instance_(std::move(instance)) {}
  bool write(const std::string& file, const std::string& text) const;
  std::string instance_;  // empty when moved from
};

}  // namespace tandem::cli
