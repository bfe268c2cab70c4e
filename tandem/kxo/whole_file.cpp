// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/whole_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tandem/base/unique_fd.hpp"

namespace tandem::kxo {
namespace {

Unexpected<std::string> fail_errno(const std::string& path) {
  return Unexpected{path + ": " + std::strerror(errno)};
}

bool write_all(int fd, std::string_view bytes) noexcept {
  while (!bytes.empty()) {
    const ssize_t wrote = ::write(fd, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(wrote));
  }
  return true;
}

/// Reads on until there are `size` bytes, or the end.
bool read_until(int fd, std::size_t size, std::string& bytes) {
  std::size_t done = bytes.size();
  bytes.resize(size);
  while (done < size) {
    const ssize_t got = ::read(fd, bytes.data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return false;
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  bytes.resize(done);
  return true;
}

/// Makes a new name of a file last.
bool sync_directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return fd && ::fsync(fd.get()) == 0;
}

}  // namespace

Result<void, std::string> write_whole_file(const std::string& path, std::string_view bytes) {
  std::string partial = path + ".XXXXXX";
  const UniqueFd fd(::mkostemp(partial.data(), O_CLOEXEC));
  if (!fd) return fail_errno(path);
  // mkostemp() keeps others from reading it; what is written here is no secret.
  if (!write_all(fd.get(), bytes) || ::fchmod(fd.get(), 0644) != 0 || ::fsync(fd.get()) != 0 ||
      std::rename(partial.c_str(), path.c_str()) != 0) {
    const auto failed = fail_errno(path);
    ::unlink(partial.c_str());
    return failed;
  }
  if (!sync_directory_of(path)) return fail_errno(path);
  return {};
}

Result<std::string, std::string> read_whole_file(const std::string& path, std::uint64_t most_bytes,
                                                 std::string_view begins_with) {
  // A pipe or a terminal would never end.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) return fail_errno(path);
  if (!S_ISREG(status.st_mode)) return Unexpected{path + ": is no regular file"};
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size > most_bytes) return Unexpected{path + ": is too large"};
  std::string bytes;
  for (const std::uint64_t until : {std::min<std::uint64_t>(begins_with.size(), size), size}) {
    if (!read_until(fd.get(), until, bytes)) return fail_errno(path);
    if (bytes.size() < until || !bytes.starts_with(begins_with)) break;
  }
  return bytes;
}

std::uint64_t fnv1a(std::string_view bytes) noexcept {
  std::uint64_t sum = 0xcbf29ce484222325;
  for (const char byte : bytes) sum = (sum ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
  return sum;
}

}  // namespace tandem::kxo
