// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tandem::cli {

/// What `tandem trace` was asked for.
struct TraceSettings {
  std::string output, html, svg;
  std::string categories = "all";
  std::uint32_t entries = 32768;
  bool no_sched = false;
  std::vector<std::string> command;
};

/// Runs the command, writes the files asked for, and tells how it went.
/// Returns: the exit status of `tandem trace`.
int run_trace(const TraceSettings& settings);

}  // namespace tandem::cli
