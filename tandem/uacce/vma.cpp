// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/vma.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <string>

#include "tandem/base/features.hpp"
#include "tandem/base/planted_fault.hpp"

namespace tandem::uacce::detail {
namespace {

// Linux 6.11, ioctl on /proc/PID/maps; the headers of Debian 12 do not have it.
struct ProcmapQuery {
  std::uint64_t size;
  std::uint64_t query_flags;
  std::uint64_t query_address;
  std::uint64_t vma_start;
  std::uint64_t vma_end;
  std::uint64_t vma_flags;
  std::uint64_t vma_page_size;
  std::uint64_t vma_offset;
  std::uint64_t inode;
  std::uint32_t device_major;
  std::uint32_t device_minor;
  std::uint32_t name_size;
  std::uint32_t build_id_size;
  std::uint64_t name_address;
  std::uint64_t build_id_address;
};
static_assert(sizeof(ProcmapQuery) == 104);

constexpr std::uint64_t kReadable = 0x01;
constexpr std::uint64_t kWritable = 0x02;
constexpr std::uint64_t kExecutable = 0x04;
constexpr std::uint64_t kShared = 0x08;
constexpr std::uint64_t kCoveringOrNext = 0x10;
constexpr unsigned long kProcmapQueryIoctl = _IOWR('f', 17, ProcmapQuery);

/// Takes a number and the one character behind it off the front of `text`.
template <class T>
bool take(std::string_view& text, T& value, int base, char delimiter) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{} || end == text.data() + text.size() || *end != delimiter) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()) + 1);
  return true;
}

/// Whether the query itself is missing: an older kernel, an emulator or a sandbox says so.
bool is_unknown_call(int error) { return error == ENOTTY || error == ENOSYS || error == EPERM; }

}  // namespace

bool permits(const Vma& vma, bool write) {
  if (planted_fault("uacce-skip-permission")) return true;
  return write ? vma.writable : vma.readable;
}

bool parse_maps_line(std::string_view line, Vma& vma) {
  vma = Vma{};
  if (!take(line, vma.start, 16, '-') || !take(line, vma.end, 16, ' ')) return false;
  if (line.size() < 5 || line[4] != ' ') return false;
  vma.readable = line[0] == 'r';
  vma.writable = line[1] == 'w';
  vma.executable = line[2] == 'x';
  vma.shared = line[3] == 's';
  line.remove_prefix(5);
  if (!take(line, vma.offset, 16, ' ') || !take(line, vma.device_major, 16, ':') ||
      !take(line, vma.device_minor, 16, ' ')) {
    return false;
  }
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), vma.inode, 10);
  return error == std::errc{} && end != line.data() && vma.start < vma.end;
}

VmaSource::VmaSource(int maps_fd)
    : maps_fd_(maps_fd), has_query_(feature_allowed(Feature::kProcmapQuery)) {}

Result<Vma> VmaSource::covering(std::uint64_t address) const { return find(address, false); }

Result<Vma> VmaSource::covering_or_next(std::uint64_t address) const { return find(address, true); }

Result<Vma> VmaSource::find(std::uint64_t address, bool or_next) const {
  if (has_query_.load(std::memory_order_relaxed)) {
    const auto found = query(address, or_next);
    if (found || !is_unknown_call(found.error().value())) return found;
    has_query_.store(false, std::memory_order_relaxed);
  }
  return parse(address, or_next);
}

Result<Vma> VmaSource::query(std::uint64_t address, bool or_next) const {
  ProcmapQuery query{};
  query.size = sizeof query;
  query.query_flags = or_next ? kCoveringOrNext : 0;
  query.query_address = address;
  while (::ioctl(maps_fd_, kProcmapQueryIoctl, &query) != 0) {
    if (errno != EINTR) return last_errno();
  }
  Vma vma;
  vma.start = query.vma_start;
  vma.end = query.vma_end;
  vma.offset = query.vma_offset;
  vma.inode = query.inode;
  vma.device_major = query.device_major;
  vma.device_minor = query.device_minor;
  vma.readable = (query.vma_flags & kReadable) != 0;
  vma.writable = (query.vma_flags & kWritable) != 0;
  vma.executable = (query.vma_flags & kExecutable) != 0;
  vma.shared = (query.vma_flags & kShared) != 0;
  return vma;
}

Result<Vma> VmaSource::parse(std::uint64_t address, bool or_next) const {
  const MutexLock lock(parse_mutex_);
  std::string text;
  off_t offset = 0;
  char buffer[16384];
  bool any = false;
  while (true) {
    const ssize_t got = ::pread(maps_fd_, buffer, sizeof buffer, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return last_errno();
    if (got == 0) return errno_error(any ? ENOENT : ESRCH);
    offset += got;
    text.append(buffer, static_cast<std::size_t>(got));
    std::string_view rest = text;
    for (auto newline = rest.find('\n'); newline != rest.npos; newline = rest.find('\n')) {
      Vma vma;
      if (parse_maps_line(rest.substr(0, newline), vma)) {
        any = true;
        if (address < vma.start && !or_next) return errno_error(ENOENT);
        if (address < vma.end) return vma;
      }
      rest.remove_prefix(newline + 1);
    }
    text.erase(0, text.size() - rest.size());
  }
}

}  // namespace tandem::uacce::detail
