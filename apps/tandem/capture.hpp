// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tandem/trace/trace.hpp"

namespace tandem::cli {

/// One line of the kernel's scheduler.
struct SchedEvent {
  enum class Kind : std::uint8_t { kSwitch, kWakeup };
  struct Task {
    std::int32_t thread = 0;  // 0: the core idles
    std::int32_t priority = 0;
    std::string name;
  };
  Kind kind = Kind::kSwitch;
  std::uint64_t time_ns = 0;      // CLOCK_MONOTONIC
  std::uint32_t cpu = 0;          // where it happened; of a wakeup, where the task will run
  Task before;                    // of a switch
  std::int64_t before_state = 0;  // of a switch; 0: could have run on
  Task task;                      // what runs from now on, or has been woken
};

/// All that `tandem trace` has gathered about one run of a command.
struct Capture {
  std::string command;  // for people
  trace::Recording recording;
  std::vector<SchedEvent> sched;  // oldest first; empty without privilege
};

/// A span of a thread's time, from its begin and end records.
struct Span {
  const trace::Record* begin = nullptr;
  const trace::Record* end = nullptr;  // nullptr: the thread ended in it, or it lasts
};

/// Pairs begins with ends, thread by thread, in order of their beginning. Ends whose begin was
/// overwritten are left out. The result points into `records`.
std::vector<Span> find_spans(const std::vector<trace::Record>& records);

/// "operation" for operation_begin and operation_end.
std::string_view span_name(trace::Event event);

/// Perfetto's native format: a `Trace` of TracePackets, in the wire format of protocol buffers.
///
/// Each process and thread is a track. Spans become slices, other events instants, with their
/// arguments; a request's submission, operation and completion are joined by a flow.
/// Spec: perfetto, protos/perfetto/trace/{trace,trace_packet,clock_snapshot}.proto,
///       track_event/*.proto, ftrace/*.proto; Protocol Buffers, "Encoding".
std::string to_perfetto(const Capture& capture);

/// A picture of what each core and each process did, as one SVG document.
std::string to_svg(const Capture& capture);

/// One self-contained page around to_svg(), with what it means and how much was dropped.
std::string to_html(const Capture& capture);

}  // namespace tandem::cli
