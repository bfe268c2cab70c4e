// SPDX-License-Identifier: Apache-2.0
#include "tandem/trace/detail/ring_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "tandem/trace/detail/ring.hpp"

namespace tandem::trace {
namespace detail {

bool RingFiles::set_directory(const char* path) noexcept {
  const int length = std::snprintf(path_, sizeof path_, "%s/ring-XXXXXX", path);
  const bool fits = path[0] == '/' && length > 0 && static_cast<std::size_t>(length) < sizeof path_;
  if (!fits) path_[0] = '\0';
  return fits;
}

void RingFiles::set_entries(std::size_t entries) noexcept {
  if (entries == 0) entries = kDefaultEntries;
  entries_ =
      static_cast<std::uint32_t>(std::bit_ceil(std::clamp(entries, std::size_t{64}, kMostEntries)));
}

namespace {

/// The name of the process: that of its first thread.
Name process_name() noexcept {
  Name name{};
  const UniqueFd comm(::open("/proc/self/comm", O_RDONLY | O_CLOEXEC));
  const ssize_t got = comm ? ::read(comm.get(), name.data(), name.size() - 1) : 0;
  name[got > 0 ? static_cast<std::size_t>(got) - 1 : 0] = '\0';  // instead of the line's end
  return name;
}

Mapping new_file(const RingFiles& files, std::size_t size_bytes) noexcept {
  std::array<char, PATH_MAX> path;
  std::snprintf(path.data(), path.size(), "%s", files.pattern());
  const UniqueFd file(::mkostemp(path.data(), O_CLOEXEC));
  if (!file) return {};
  // A hole that finds no room when it is written to would kill the process.
  if (::posix_fallocate(file.get(), 0, static_cast<off_t>(size_bytes)) != 0) {
    ::unlink(path.data());
    return {};
  }
  auto mapped = Mapping::shared(file.get(), size_bytes);
  return mapped ? std::move(*mapped) : Mapping();
}

Mapping new_memory(std::size_t size_bytes) noexcept {
  auto mapped = Mapping::anonymous(size_bytes);
  return mapped ? std::move(*mapped) : Mapping();
}

}  // namespace

Mapping new_ring_memory(const RingFiles& files, std::size_t entries_in_memory) noexcept {
  const auto entries =
      files.in_memory() ? static_cast<std::uint32_t>(entries_in_memory) : files.entries();
  const std::size_t size = Ring::size_bytes(entries);
  Mapping memory = files.in_memory() ? new_memory(size) : new_file(files, size);
  if (memory) {
    Ring::make(memory.data(), entries, static_cast<std::uint32_t>(::getpid()), process_name());
  }
  return memory;
}

void sort_by_time(std::vector<Record>& records) {
  std::stable_sort(records.begin(), records.end(), [](const Record& left, const Record& right) {
    return left.time_ns < right.time_ns;
  });
}

namespace {

Thread describe(const RingHeader& header) {
  Thread thread;
  thread.process = header.process;
  thread.thread = header.thread.load(std::memory_order_relaxed);
  Name name;
  std::array<std::uint64_t, 2> words;
  for (std::size_t i = 0; i < words.size(); ++i) {
    words[i] = header.thread_name[i].load(std::memory_order_relaxed);
  }
  std::memcpy(name.data(), words.data(), sizeof words);
  thread.name.assign(name.data(), ::strnlen(name.data(), name.size()));
  name = header.process_name;
  thread.process_name.assign(name.data(), ::strnlen(name.data(), name.size()));
  return thread;
}

/// Adds one file. Returns: false if it is no ring.
bool add_file(const std::string& path, Recording& recording) {
  const UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat status {};
  if (!file || ::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) return false;
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size < sizeof(RingHeader)) return false;
  const auto memory = Mapping::shared(file.get(), size);
  if (!memory) return false;
  const Ring ring = Ring::find(memory->data(), size);
  if (!ring) return false;
  recording.dropped += ring.read(recording.records);
  recording.threads.push_back(describe(ring.header()));
  return true;
}

}  // namespace
}  // namespace detail

Result<Recording> collect(const std::string& directory) {
  std::error_code error;
  Recording recording;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    if (!detail::add_file(entry->path().string(), recording)) ++recording.unreadable;
  }
  if (error) return Unexpected{error};
  detail::sort_by_time(recording.records);
  return recording;
}

}  // namespace tandem::trace
