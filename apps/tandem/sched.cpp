// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/sched.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <utility>

namespace tandem::cli {
namespace {

constexpr const char* kPlaces[] = {"/sys/kernel/tracing", "/sys/kernel/debug/tracing"};
constexpr const char* kBufferKib = "8192";  // of each CPU

template <class T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// Cuts the last word off `text`.
std::string_view last_word(std::string_view& text) {
  text = text.substr(0, text.find_last_not_of(' ') + 1);
  const std::size_t space = text.rfind(' ');
  const std::string_view word = text.substr(space == std::string_view::npos ? 0 : space + 1);
  text.remove_suffix(word.size());
  return word;
}

/// Reads "KEYcomm=NAME KEYpid=1 KEYprio=2" and cuts it off `text`'s front. A name may have spaces.
std::optional<SchedEvent::Task> take_task(std::string_view& text, const std::string& key) {
  const std::string comm = key + "comm=", pid = " " + key + "pid=", prio = " " + key + "prio=";
  if (!text.starts_with(comm)) return std::nullopt;
  const std::size_t at_pid = text.find(pid), at_prio = text.find(prio);
  if (at_pid == std::string_view::npos || at_prio == std::string_view::npos || at_prio < at_pid) {
    return std::nullopt;
  }
  const std::size_t end = std::min(text.find(' ', at_prio + 1), text.size());
  const auto thread =
      number<std::int32_t>(text.substr(at_pid + pid.size(), at_prio - at_pid - pid.size()));
  const auto priority =
      number<std::int32_t>(text.substr(at_prio + prio.size(), end - at_prio - prio.size()));
  if (!thread || !priority) return std::nullopt;
  SchedEvent::Task task{*thread, *priority,
                        std::string(text.substr(comm.size(), at_pid - comm.size()))};
  text.remove_prefix(end);
  return task;
}

/// A letter of prev_state as the bit that Perfetto takes: that of the kernel's TASK_*.
std::int64_t state_bits(std::string_view letters) {
  constexpr std::string_view kLetters = "SDTtXZPI";
  std::int64_t bits = letters.ends_with('+') ? 1 << kLetters.size() : 0;
  for (const char letter : letters) {
    const std::size_t at = kLetters.find(letter);
    if (at != std::string_view::npos) bits |= std::int64_t{1} << at;
  }
  return bits;
}

bool parse_switch(std::string_view detail, SchedEvent& event) {
  constexpr std::string_view kState = " prev_state=", kArrow = " ==> ";
  const auto before = take_task(detail, "prev_");
  const std::size_t arrow = detail.find(kArrow);
  if (!before || !detail.starts_with(kState) || arrow == std::string_view::npos) return false;
  event.before = *before;
  event.before_state = state_bits(detail.substr(kState.size(), arrow - kState.size()));
  detail.remove_prefix(arrow + kArrow.size());
  const auto next = take_task(detail, "next_");
  if (next) event.task = *next;
  return next.has_value();
}

bool parse_wakeup(std::string_view detail, SchedEvent& event) {
  constexpr std::string_view kTarget = " target_cpu=";
  const auto task = take_task(detail, "");
  const std::size_t target = detail.find(kTarget);
  if (!task || target == std::string_view::npos) return false;
  const auto cpu = number<std::uint32_t>(detail.substr(target + kTarget.size()));
  event.kind = SchedEvent::Kind::kWakeup;
  event.task = *task;
  if (cpu) event.cpu = *cpu;
  return cpu.has_value();
}

}  // namespace

std::optional<SchedEvent> parse_sched_line(std::string_view line) {
  // "  name-123     [001] d..2.  1234.567890: sched_switch: …"; the name may hold anything.
  const std::size_t event_at = line.find(": sched_");
  if (line.starts_with('#') || event_at == std::string_view::npos) return std::nullopt;
  std::string_view head = line.substr(0, event_at);
  std::string_view rest = line.substr(event_at + 2);
  const std::string_view time = last_word(head);
  (void)last_word(head);  // flags
  const std::string_view core = last_word(head);
  const std::size_t point = time.find('.');
  if (point == std::string_view::npos || core.size() < 3 || core.front() != '[')
    return std::nullopt;
  const auto seconds = number<std::uint64_t>(time.substr(0, point));
  const auto micros = number<std::uint64_t>(time.substr(point + 1));
  const auto cpu = number<std::uint32_t>(core.substr(1, core.size() - 2));
  const std::size_t colon = rest.find(": ");
  if (!seconds || !micros || time.size() - point != 7 || !cpu || colon == std::string_view::npos) {
    return std::nullopt;
  }
  SchedEvent event;
  event.time_ns = *seconds * 1'000'000'000 + *micros * 1'000;
  event.cpu = *cpu;
  const std::string_view name = rest.substr(0, colon);
  rest.remove_prefix(colon + 2);
  const bool parsed = name == "sched_switch" ? parse_switch(rest, event)
                      : name == "sched_wakeup" || name == "sched_wakeup_new"
                          ? parse_wakeup(rest, event)
                          : false;
  if (!parsed) return std::nullopt;
  return event;
}

SchedTracer::SchedTracer(SchedTracer&& other) noexcept
    : instance_(std::exchange(other.instance_, {})) {}

SchedTracer::~SchedTracer() {
  if (!instance_.empty()) ::rmdir(instance_.c_str());  // tracefs removes what is in it
}

bool SchedTracer::write(const std::string& file, const std::string& text) const {
  std::ofstream out(instance_ + "/" + file);
  out << text << std::flush;
  return out.good();
}

Result<SchedTracer, std::string> SchedTracer::start(pid_t process) {
  std::string why = "tracefs is not mounted; try: mount -t tracefs tracefs /sys/kernel/tracing";
  for (const char* const place : kPlaces) {
    const std::string instances = std::string(place) + "/instances";
    if (::access(instances.c_str(), F_OK) != 0) {
      if (errno == EACCES) why = fmt::format("{}: {}; try: as root", place, std::strerror(errno));
      continue;
    }
    const std::string instance = fmt::format("{}/tandem-{}", instances, process);
    if (::mkdir(instance.c_str(), 0700) != 0) {
      return Unexpected{fmt::format("{}: {}; try: as root", instance, std::strerror(errno))};
    }
    SchedTracer tracer(instance);
    const bool ready = tracer.write("trace_clock", "mono") &&
                       tracer.write("buffer_size_kb", kBufferKib) &&
                       tracer.write("options/event-fork", "1") &&
                       tracer.write("set_event_pid", std::to_string(process)) &&
                       tracer.write("events/sched/sched_switch/enable", "1") &&
                       tracer.write("events/sched/sched_wakeup/enable", "1") &&
                       tracer.write("events/sched/sched_wakeup_new/enable", "1");
    if (!ready) return Unexpected{instance + ": it takes no scheduler events"};
    return tracer;
  }
  return Unexpected{why};
}

std::vector<SchedEvent> SchedTracer::finish(std::uint64_t& dropped) {
  (void)write("tracing_on", "0");
  std::vector<SchedEvent> events;
  std::ifstream trace(instance_ + "/trace");
  for (std::string line; std::getline(trace, line);) {
    std::uint64_t kept = 0, written = 0;
    if (std::sscanf(line.c_str(), "# entries-in-buffer/entries-written: %lu/%lu", &kept,
                    &written) == 2) {
      dropped += written - kept;
    }
    if (auto event = parse_sched_line(line)) events.push_back(std::move(*event));
  }
  std::stable_sort(events.begin(), events.end(), [](const auto& left, const auto& right) {
    return left.time_ns < right.time_ns;
  });
  return events;
}

}  // namespace tandem::cli
