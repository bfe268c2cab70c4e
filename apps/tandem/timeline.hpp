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
    int agent = -1;  // that thought: enum tandem_kxo_player; -1: another operation
  };
  /// A board of a game device, as long as it was heard of.
  struct Board {
    struct Think {
      std::uint32_t cpu = 0;
      int player = 0;
      double from = 0, to = 0;
    };
    struct End {
      double at = 0;
      int winner = 0;  // 0: nobody; 1: O; 2: X
    };
    std::uint64_t id = 0;
    int o = -1, x = -1;  // who plays, at the end: enum tandem_kxo_player; -1: unknown
    std::size_t moves = 0;
    std::vector<Think> thinking;  // agents, for it
    std::vector<End> ended;       // games
  };
  std::vector<Process> processes;  // clients first, in order of appearance
  std::vector<Board> boards;       // in order of their ids
  std::vector<int> agents;         // that thought, in order
  std::vector<Mark> marks;
  std::vector<Work> engines;  // an engine worked for that process
  std::vector<Work> running;  // the process ran: from the scheduler, else empty
  std::vector<Work> seen;     // the process recorded an event there: from = to
  std::vector<double> grace_periods;
  std::vector<std::uint32_t> cpus;
  double length = 1;
};

Story tell(const Capture& capture);
/// Its part about game boards, for tell(). `start_ns`: the first event.
void tell_boards(const Capture& capture, const std::vector<Span>& spans, std::uint64_t start_ns,
                 Story& story);

/// `text` as SVG and HTML show it; control characters become spaces.
std::string escape_markup(std::string_view text);

}  // namespace tandem::cli
