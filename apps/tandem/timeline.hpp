// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "apps/tandem/capture.hpp"

namespace tandem::cli {

/// What a picture tells: who, and what happened to them. Times are ns since the first event.
struct Story {
  struct Process {
    std::uint32_t pid = 0;
    std::string name;
    double first = 0, last = 0;  // of its own events
    std::size_t events = 0, operations = 0, faults = 0;
    std::vector<double> faulted, killed, forked;  // when
    bool client = false;                          // has an address space that engines work in
  };
  struct Mark {
    double at = 0;
    std::string text;
  };
  /// Work of one process's on one core, [from, to).
  struct Work {
    std::uint32_t cpu = 0;
    std::size_t process = 0;  // index in `processes`
    double from = 0, to = 0;
  };
  std::vector<Process> processes;  // clients first, in order of appearance
  std::vector<Mark> marks;
  std::vector<Work> engines;  // an engine worked for that process
  std::vector<Work> running;  // the process ran: from the scheduler, else empty
  std::vector<Work> seen;     // the process recorded an event there: from = to
  std::vector<double> grace_periods;
  std::vector<std::uint32_t> cpus;
  double length = 1;
};

Story tell(const Capture& capture);

/// `text` as SVG and HTML show it; control characters become spaces.
std::string escape_markup(std::string_view text);

}  // namespace tandem::cli
