// SPDX-License-Identifier: Apache-2.0
#include <ctime>
#include <map>
#include <set>
#include <utility>

#include "apps/tandem/capture.hpp"

namespace tandem::cli {
namespace {

using trace::Record;

/// A message in the wire format. Spec: Protocol Buffers, "Encoding".
class Message {
 public:
  void number(std::uint32_t field, std::uint64_t value) {
    varint(field << 3);
    varint(value);
  }
  void fixed64(std::uint32_t field, std::uint64_t value) {
    varint(field << 3 | 1);
    for (int i = 0; i < 8; ++i) bytes_.push_back(static_cast<char>(value >> (8 * i)));
  }
  void text(std::uint32_t field, std::string_view value) {
    varint(field << 3 | 2);
    varint(value.size());
    bytes_.append(value);
  }
  void message(std::uint32_t field, const Message& value) { text(field, value.bytes_); }
  std::string take() { return std::move(bytes_); }

 private:
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>(value | 0x80));
    bytes_.push_back(static_cast<char>(value));
  }
  std::string bytes_;
};

// Field numbers, named as in the .proto files.
namespace field {
constexpr std::uint32_t kTracePacket = 1;
namespace packet {
constexpr std::uint32_t kFtraceEvents = 1, kClockSnapshot = 6, kTimestamp = 8, kSequenceId = 10,
                        kTrackEvent = 11, kTimestampClockId = 58, kTrackDescriptor = 60;
}
namespace clock_snapshot {
constexpr std::uint32_t kClocks = 1, kPrimaryTraceClock = 2, kClockId = 1, kTimestamp = 2;
}
namespace descriptor {
constexpr std::uint32_t kUuid = 1, kProcess = 3, kThread = 4, kParentUuid = 5;
constexpr std::uint32_t kProcessPid = 1, kProcessName = 6;
constexpr std::uint32_t kThreadPid = 1, kThreadTid = 2, kThreadName = 5;
}  // namespace descriptor
namespace event {
constexpr std::uint32_t kDebugAnnotations = 4, kType = 9, kTrackUuid = 11, kCategories = 22,
                        kName = 23, kFlowIds = 47, kTerminatingFlowIds = 48;
constexpr std::uint32_t kAnnotationUint = 3, kAnnotationPointer = 7, kAnnotationName = 10;
}  // namespace event
namespace ftrace {
constexpr std::uint32_t kCpu = 1, kEvent = 2;
constexpr std::uint32_t kTimestamp = 1, kPid = 2, kSchedSwitch = 4, kSchedWakeup = 17;
constexpr std::uint32_t kPrevComm = 1, kPrevPid = 2, kPrevPrio = 3, kPrevState = 4, kNextComm = 5,
                        kNextPid = 6, kNextPrio = 7;
constexpr std::uint32_t kComm = 1, kWokenPid = 2, kPrio = 3, kTargetCpu = 5;
}  // namespace ftrace
}  // namespace field

constexpr std::uint64_t kSliceBegin = 1, kSliceEnd = 2, kInstant = 3;  // TrackEvent.Type
constexpr std::uint64_t kMonotonic = 3, kBoottime = 6;                 // BuiltinClock
constexpr std::uint64_t kSequence = 1;  // of packets; nothing is interned, so one will do

std::uint64_t process_uuid(std::uint32_t process) { return std::uint64_t{process} << 32; }
std::uint64_t thread_uuid(const Record& record) {
  return process_uuid(record.process) | record.thread;
}

std::uint64_t now(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(time.tv_nsec);
}

class Writer {
 public:
  explicit Writer(const Capture& capture) : capture_(capture) {}
  std::string write();

 private:
  void add(Message packet) {
    packet.number(field::packet::kSequenceId, kSequence);
    trace_.message(field::kTracePacket, packet);
  }
  void add_clocks();
  void add_tracks();
  void add_event(const Record& record);
  void add_sched(const SchedEvent& event);
  std::string_view thread_name(const Record& record) const;
  void add_flow(Message& event, const Record& record) const;

  const Capture& capture_;
  Message trace_;
  std::set<const Record*> paired_;                 // begins and ends of spans
  std::map<const Record*, std::uint64_t> tag_of_;  // of operation_begin
  std::uint64_t boottime_ahead_ = 0;               // of CLOCK_MONOTONIC, in ns
};

/// Events carry CLOCK_MONOTONIC; the viewer's own time, and that of scheduler events, which name no
/// clock, is CLOCK_BOOTTIME.
void Writer::add_clocks() {
  Message snapshot;
  for (const auto& [id, clock] :
       {std::pair{kMonotonic, CLOCK_MONOTONIC}, std::pair{kBoottime, CLOCK_BOOTTIME}}) {
    Message reading;
    reading.number(field::clock_snapshot::kClockId, id);
    const std::uint64_t time = now(clock);
    boottime_ahead_ = time - boottime_ahead_;
    reading.number(field::clock_snapshot::kTimestamp, time);
    snapshot.message(field::clock_snapshot::kClocks, reading);
  }
  snapshot.number(field::clock_snapshot::kPrimaryTraceClock, kBoottime);
  Message packet;
  packet.message(field::packet::kClockSnapshot, snapshot);
  add(std::move(packet));
}

std::string_view Writer::thread_name(const Record& record) const {
  for (const auto& thread : capture_.recording.threads) {
    if (thread.process == record.process && thread.thread == record.thread) return thread.name;
  }
  return "ended thread";  // its ring went to another one
}

void Writer::add_tracks() {
  std::set<std::uint32_t> processes;
  for (const auto& thread : capture_.recording.threads) {
    if (!processes.insert(thread.process).second) continue;
    Message process;
    process.number(field::descriptor::kProcessPid, thread.process);
    process.text(field::descriptor::kProcessName, thread.process_name);
    Message descriptor;
    descriptor.number(field::descriptor::kUuid, process_uuid(thread.process));
    descriptor.message(field::descriptor::kProcess, process);
    Message packet;
    packet.message(field::packet::kTrackDescriptor, descriptor);
    add(std::move(packet));
  }
  std::set<std::uint64_t> threads;
  for (const Record& record : capture_.recording.records) {
    if (!threads.insert(thread_uuid(record)).second) continue;
    Message thread;
    thread.number(field::descriptor::kThreadPid, record.process);
    thread.number(field::descriptor::kThreadTid, record.thread);
    thread.text(field::descriptor::kThreadName, thread_name(record));
    Message descriptor;
    descriptor.number(field::descriptor::kUuid, thread_uuid(record));
    descriptor.number(field::descriptor::kParentUuid, process_uuid(record.process));
    descriptor.message(field::descriptor::kThread, thread);
    Message packet;
    packet.message(field::packet::kTrackDescriptor, descriptor);
    add(std::move(packet));
  }
}

/// A request is known by its queue and its number in it, on the client's side and the engine's.
void Writer::add_flow(Message& event, const Record& record) const {
  const auto id = [&](std::uint64_t tag) { return record.arguments[0] << 40 ^ (tag + 1); };
  if (record.event == trace::Event::kQueueSubmit) {
    event.fixed64(field::event::kFlowIds, id(record.arguments[1]));
  } else if (record.event == trace::Event::kQueueComplete) {
    event.fixed64(field::event::kTerminatingFlowIds, id(record.arguments[1]));
  } else if (const auto tag = tag_of_.find(&record); tag != tag_of_.end()) {
    event.fixed64(field::event::kFlowIds, id(tag->second));
  }
}

void Writer::add_event(const Record& record) {
  const trace::EventInfo& info = trace::event_info(record.event);
  const bool spans = info.phase != trace::Phase::kInstant;
  if (spans && paired_.count(&record) == 0) return;
  Message event;
  const std::uint64_t type = !spans                               ? kInstant
                             : info.phase == trace::Phase::kBegin ? kSliceBegin
                                                                  : kSliceEnd;
  event.number(field::event::kType, type);
  event.number(field::event::kTrackUuid, thread_uuid(record));
  const auto annotate = [&](std::string_view name, std::uint64_t value) {
    Message annotation;
    annotation.text(field::event::kAnnotationName, name);
    annotation.number(name == "address" || name == "domain" ? field::event::kAnnotationPointer
                                                            : field::event::kAnnotationUint,
                      value);
    event.message(field::event::kDebugAnnotations, annotation);
  };
  if (type != kSliceEnd) {
    event.text(field::event::kCategories, trace::category_name(info.category));
    event.text(field::event::kName, record.event == trace::Event::kMark
                                        ? std::string_view(record.text())
                                        : span_name(record.event));
  }
  for (std::size_t i = 0; i < info.arguments.size(); ++i) {
    if (!info.arguments[i].empty()) annotate(info.arguments[i], record.arguments[i]);
  }
  if (record.cpu != Record::kNoCpu) annotate(type == kSliceEnd ? "end core" : "core", record.cpu);
  add_flow(event, record);
  Message packet;
  packet.number(field::packet::kTimestamp, record.time_ns);
  packet.number(field::packet::kTimestampClockId, kMonotonic);
  packet.message(field::packet::kTrackEvent, event);
  add(std::move(packet));
}

void Writer::add_sched(const SchedEvent& event) {
  Message detail;
  std::uint32_t kind = field::ftrace::kSchedWakeup;
  if (event.kind == SchedEvent::Kind::kSwitch) {
    kind = field::ftrace::kSchedSwitch;
    detail.text(field::ftrace::kPrevComm, event.before.name);
    detail.number(field::ftrace::kPrevPid, static_cast<std::uint64_t>(event.before.thread));
    detail.number(field::ftrace::kPrevPrio, static_cast<std::uint64_t>(event.before.priority));
    detail.number(field::ftrace::kPrevState, static_cast<std::uint64_t>(event.before_state));
    detail.text(field::ftrace::kNextComm, event.task.name);
    detail.number(field::ftrace::kNextPid, static_cast<std::uint64_t>(event.task.thread));
    detail.number(field::ftrace::kNextPrio, static_cast<std::uint64_t>(event.task.priority));
  } else {
    detail.text(field::ftrace::kComm, event.task.name);
    detail.number(field::ftrace::kWokenPid, static_cast<std::uint64_t>(event.task.thread));
    detail.number(field::ftrace::kPrio, static_cast<std::uint64_t>(event.task.priority));
    detail.number(field::ftrace::kTargetCpu, event.cpu);
  }
  Message entry;
  entry.number(field::ftrace::kTimestamp, event.time_ns + boottime_ahead_);
  entry.number(field::ftrace::kPid, static_cast<std::uint64_t>(event.before.thread));
  entry.message(kind, detail);
  Message bundle;
  bundle.number(field::ftrace::kCpu, event.cpu);
  bundle.message(field::ftrace::kEvent, entry);
  Message packet;
  packet.message(field::packet::kFtraceEvents, bundle);
  add(std::move(packet));
}

std::string Writer::write() {
  for (const Span& span : find_spans(capture_.recording.records)) {
    paired_.insert(span.begin);
    if (span.end == nullptr) continue;
    paired_.insert(span.end);
    if (span.end->event == trace::Event::kOperationEnd) {
      tag_of_[span.begin] = span.end->arguments[1];
    }
  }
  add_clocks();
  add_tracks();
  for (const Record& record : capture_.recording.records) add_event(record);
  for (const SchedEvent& event : capture_.sched) add_sched(event);
  return trace_.take();
}

}  // namespace

std::string to_perfetto(const Capture& capture) { return Writer(capture).write(); }

}  // namespace tandem::cli
