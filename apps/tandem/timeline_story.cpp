// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "apps/tandem/timeline.hpp"
#include "tandem/abi/ring.h"

namespace tandem::cli {
namespace {

using trace::Event;
using trace::Record;

class Teller {
 public:
  explicit Teller(const Capture& capture) : capture_(capture) {}
  Story tell();

 private:
  std::uint64_t end_of(const Span& span) const {
    return span.end != nullptr ? span.end->time_ns : capture_.recording.records.back().time_ns;
  }
  double since(std::uint64_t time_ns) const { return static_cast<double>(time_ns - start_); }
  std::size_t process(std::uint32_t pid);
  std::optional<std::size_t> process_of_pasid(std::uint64_t pasid) const;
  void find_owners();
  void take(const Record& record);
  void take_spans();
  void take_sched();
  void order_processes();

  const Capture& capture_;
  Story story_;
  std::uint64_t start_ = 0;
  std::map<std::uint32_t, std::size_t> by_pid_;
  std::map<std::uint64_t, std::uint32_t> pid_of_pasid_, pid_of_queue_;
};

std::size_t Teller::process(std::uint32_t pid) {
  const auto [at, fresh] = by_pid_.try_emplace(pid, story_.processes.size());
  if (!fresh) return at->second;
  Story::Process made;
  made.pid = pid;
  made.name = "process";
  for (const auto& thread : capture_.recording.threads) {
    if (thread.process == pid) made.name = thread.process_name;
  }
  made.first = -1;
  story_.processes.push_back(std::move(made));
  return at->second;
}

std::optional<std::size_t> Teller::process_of_pasid(std::uint64_t pasid) const {
  const auto pid = pid_of_pasid_.find(pasid);
  if (pid == pid_of_pasid_.end()) return std::nullopt;
  const auto at = by_pid_.find(pid->second);
  return at == by_pid_.end() ? std::nullopt : std::optional(at->second);
}

/// Whose a queue is: its submissions say.
void Teller::find_owners() {
  for (const Record& record : capture_.recording.records) {
    if (record.event == Event::kPasidBind) {
      story_.processes[process(static_cast<std::uint32_t>(record.arguments[1]))].client = true;
    } else if (record.event == Event::kQueueSubmit || record.event == Event::kDoorbell) {
      pid_of_queue_[record.arguments[0]] = record.process;
    }
  }
}

void Teller::take(const Record& record) {
  const double at = since(record.time_ns);
  const std::size_t index = process(record.process);
  Story::Process& by = story_.processes[index];
  if (by.first < 0) by.first = at;
  by.last = at;
  ++by.events;
  if (record.cpu != Record::kNoCpu) story_.seen.push_back({record.cpu, index, at, at});
  switch (record.event) {
    case Event::kPasidBind:
      pid_of_pasid_[record.arguments[0]] = static_cast<std::uint32_t>(record.arguments[1]);
      break;
    case Event::kOperationEnd:
    case Event::kNop:
      if (const auto owner = pid_of_queue_.find(record.arguments[0]);
          owner != pid_of_queue_.end()) {
        ++story_.processes[process(owner->second)].operations;
      }
      break;
    case Event::kOperationFault:
      if (const auto owner = process_of_pasid(record.arguments[0])) {
        story_.processes[*owner].faulted.push_back(at);
        ++story_.processes[*owner].faults;
      }
      break;
    case Event::kQueueDeath:
      if (record.arguments[1] == TANDEM_QUEUE_OWNER_GONE) {
        if (const auto owner = pid_of_queue_.find(record.arguments[0]);
            owner != pid_of_queue_.end() && owner->second != record.process) {
          story_.processes[process(owner->second)].killed.push_back(at);
        }
      }
      break;
    case Event::kForkRebind:
      by.forked.push_back(at);
      break;
    case Event::kMark:
      story_.marks.push_back({at, record.text()});
      break;
    case Event::kRcuGracePeriodEnd:
      story_.grace_periods.push_back(at);
      break;
    default:
      break;
  }
}

void Teller::take_spans() {
  pid_of_pasid_.clear();
  std::size_t bound = 0;
  const auto& records = capture_.recording.records;
  const std::vector<Span> spans = find_spans(records);
  std::map<std::uint32_t, std::uint64_t> operation_until;  // by thread
  for (const Span& span : spans) {
    const bool operation = span.begin->event == Event::kOperationBegin;
    if (span.begin->cpu == Record::kNoCpu) continue;
    if (!operation && span.begin->event != Event::kThinkBegin) continue;
    // An agent that thinks in an operation has its time already.
    if (!operation && span.begin->time_ns < operation_until[span.begin->thread]) continue;
    if (operation) operation_until[span.begin->thread] = end_of(span);
    for (; bound < records.size() && records[bound].time_ns <= span.begin->time_ns; ++bound) {
      if (records[bound].event == Event::kPasidBind) {
        pid_of_pasid_[records[bound].arguments[0]] =
            static_cast<std::uint32_t>(records[bound].arguments[1]);
      }
    }
    auto owner = process_of_pasid(span.begin->arguments[2]);
    if (!owner && !operation) owner = process(span.begin->process);
    if (!owner) {  // bound before the oldest event that is left
      const auto queue = pid_of_queue_.find(span.begin->arguments[0]);
      owner = process(queue != pid_of_queue_.end() ? queue->second : span.begin->process);
    }
    story_.engines.push_back({span.begin->cpu, *owner, since(span.begin->time_ns),
                              since(end_of(span)),
                              operation ? -1 : static_cast<int>(span.begin->arguments[1])});
  }
  tell_boards(capture_, spans, start_, story_);
}

/// Between two switches of a core, the task of the first one ran there.
void Teller::take_sched() {
  std::map<std::int32_t, std::uint32_t> pid_of_thread;
  for (const auto& record : capture_.recording.records) {
    pid_of_thread[static_cast<std::int32_t>(record.thread)] = record.process;
  }
  const auto end = start_ + static_cast<std::uint64_t>(story_.length);
  std::map<std::uint32_t, const SchedEvent*> last;
  const auto close = [&](const SchedEvent& from, std::uint64_t until) {
    const auto pid = pid_of_thread.find(from.task.thread);
    if (pid == pid_of_thread.end() || until <= start_ || from.time_ns >= end) return;
    story_.running.push_back({from.cpu, process(pid->second), since(std::max(from.time_ns, start_)),
                              since(std::min(until, end))});
  };
  for (const SchedEvent& event : capture_.sched) {
    if (event.kind != SchedEvent::Kind::kSwitch) continue;
    const SchedEvent*& before = last[event.cpu];
    // A switch from a task that the last one did not lead to: in between there was one not of ours.
    if (before != nullptr && before->task.thread == event.before.thread) {
      close(*before, event.time_ns);
    }
    before = &event;
  }
}

/// Clients first, in order of appearance; indices elsewhere follow.
void Teller::order_processes() {
  std::vector<std::size_t> order(story_.processes.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t left, std::size_t right) {
    const auto& a = story_.processes[left];
    const auto& b = story_.processes[right];
    return std::pair(!a.client, a.first) < std::pair(!b.client, b.first);
  });
  std::vector<Story::Process> processes;
  std::vector<std::size_t> place(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    place[order[i]] = i;
    processes.push_back(std::move(story_.processes[order[i]]));
  }
  story_.processes = std::move(processes);
  for (auto* const works : {&story_.engines, &story_.running, &story_.seen}) {
    for (auto& work : *works) work.process = place[work.process];
  }
}

Story Teller::tell() {
  const auto& records = capture_.recording.records;
  if (records.empty()) return std::move(story_);
  start_ = records.front().time_ns;
  story_.length = std::max(1.0, since(records.back().time_ns));
  find_owners();
  for (const Record& record : records) take(record);
  take_spans();
  take_sched();
  std::set<std::uint32_t> cpus;
  for (const auto* const works : {&story_.engines, &story_.running, &story_.seen}) {
    for (const auto& work : *works) cpus.insert(work.cpu);
  }
  story_.cpus.assign(cpus.begin(), cpus.end());
  std::erase_if(story_.marks, [](const auto& mark) { return mark.text.empty(); });
  order_processes();
  return std::move(story_);
}

}  // namespace

Story tell(const Capture& capture) { return Teller(capture).tell(); }

}  // namespace tandem::cli
