// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/detail/thread_activity.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdio>
#include <string_view>
#include <system_error>

#include "tandem/base/unique_fd.hpp"

namespace tandem::rcu::detail {
namespace {

/// A file of /proc/self/task/TID: short, and made anew at each read.
class TaskFile {
 public:
  TaskFile(std::int32_t tid, const char* name) noexcept {
    std::array<char, 64> path{};
    std::snprintf(path.data(), path.size(), "/proc/self/task/%d/%s", tid, name);
    const UniqueFd fd(::open(path.data(), O_RDONLY | O_CLOEXEC));
    if (!fd) return;
    while (size_ < text_.size()) {
      const ssize_t got = ::read(fd.get(), text_.data() + size_, text_.size() - size_);
      if (got <= 0) break;
      size_ += static_cast<std::size_t>(got);
    }
  }
  std::string_view text() const noexcept { return {text_.data(), size_}; }

 private:
  std::array<char, 4096> text_;
  std::size_t size_ = 0;
};

std::optional<std::uint64_t> number_at(std::string_view text) noexcept {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return std::nullopt;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data() + begin, text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  return value;
}

/// What follows the thread's name in its `stat`; the name may hold anything.
std::string_view after_name(std::string_view stat) noexcept {
  const std::size_t name_end = stat.rfind(')');
  return name_end == std::string_view::npos ? std::string_view() : stat.substr(name_end + 1);
}

}  // namespace

/// A thread that is stopped on its way out of a system call looks as if it were blocked in it; so
/// between two looks that agree it has to be asleep by the kernel's word.
Activity thread_activity(std::int32_t tid) noexcept {
  const TaskFile file(tid, "syscall");
  const std::string_view text = file.text();
  if (text.empty()) return Activity::kUnknown;
  if (text.starts_with("running")) return Activity::kRunning;
  if (text.starts_with("-")) return Activity::kElsewhere;
  const TaskFile stat(tid, "stat");
  const std::string_view state = after_name(stat.text());
  const bool asleep = state.starts_with(" S") || state.starts_with(" D");
  if (!asleep) return state.starts_with(" R") ? Activity::kRunning : Activity::kElsewhere;
  return TaskFile(tid, "syscall").text() == text ? Activity::kInSystemCall : Activity::kRunning;
}

std::optional<std::uint64_t> voluntary_switches(std::int32_t tid) noexcept {
  const TaskFile file(tid, "status");
  constexpr std::string_view kKey = "\nvoluntary_ctxt_switches:";
  const std::size_t at = file.text().find(kKey);
  if (at == std::string_view::npos) return std::nullopt;
  return number_at(file.text().substr(at + kKey.size()));
}

std::optional<std::uint64_t> page_faults(std::int32_t tid) noexcept {
  const TaskFile file(tid, "stat");
  std::string_view text = after_name(file.text());
  std::uint64_t faults = 0;
  // After the name come fields 3 (state) and on; 10 is minflt, 12 is majflt.
  for (int field = 3; field <= 12; ++field) {
    const std::size_t begin = text.find_first_not_of(' ');
    if (begin == std::string_view::npos) return std::nullopt;
    text.remove_prefix(begin);
    if (field == 10 || field == 12) {
      const auto count = number_at(text);
      if (!count) return std::nullopt;
      faults += *count;
    }
    const std::size_t end = text.find(' ');
    if (end == std::string_view::npos) return std::nullopt;
    text.remove_prefix(end);
  }
  return faults;
}

std::optional<std::uint64_t> cpu_time_ns(std::int32_t tid) noexcept {
  const TaskFile file(tid, "schedstat");
  if (file.text().starts_with("0 0 0")) return std::nullopt;
  return number_at(file.text());
}

}  // namespace tandem::rcu::detail
