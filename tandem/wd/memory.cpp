// SPDX-License-Identifier: Apache-2.0
#include "tandem/wd/detail/memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "tandem/base/unique_fd.hpp"

namespace tandem::wd::detail {
namespace {

constexpr std::size_t kSuperpage = std::size_t{2} << 20;

/// An address range of `size_bytes`, aligned for superpages, that MAP_FIXED may replace.
void* aligned_hole(std::size_t size_bytes) {
  const std::size_t padded = size_bytes + kSuperpage;
  void* const at =
      ::mmap(nullptr, padded, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<std::uintptr_t>(at);
  const auto aligned = (start + kSuperpage - 1) & ~(kSuperpage - 1);
  if (aligned > start) ::munmap(at, aligned - start);
  const auto end = aligned + size_bytes;
  if (start + padded > end) ::munmap(reinterpret_cast<void*>(end), start + padded - end);
  return reinterpret_cast<void*>(aligned);
}

enum class Direction { kFromUser, kToUser };

/// Through a pipe: read() and write() answer a bad pointer with EFAULT too. For places where
/// process_vm_readv() is not allowed.
std::size_t copy_by_pipe(std::byte* ours, std::byte* theirs, std::size_t size, Direction way) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return 0;
  const UniqueFd out(ends[0]);
  const UniqueFd in(ends[1]);
  const std::byte* const source = way == Direction::kFromUser ? theirs : ours;
  std::byte* const sink = way == Direction::kFromUser ? ours : theirs;
  std::size_t done = 0;
  while (done < size) {
    // Up to the end of the page on the user's side, so that a fault is exact.
    const auto at = reinterpret_cast<std::uintptr_t>(theirs + done);
    const std::size_t step = std::min(size - done, kPageSize - at % kPageSize);
    if (::write(in.get(), source + done, step) != static_cast<ssize_t>(step)) break;
    if (::read(out.get(), sink + done, step) != static_cast<ssize_t>(step)) break;
    done += step;
  }
  return done;
}

std::size_t copy_user(std::byte* ours, std::uint64_t user, std::size_t size, Direction way) {
  // At most this many bytes a call; the kernel copies page by page and stops at the first bad one.
  constexpr std::size_t kAtOnce = std::size_t{1} << 30;
  auto* const theirs = reinterpret_cast<std::byte*>(user);
  std::size_t done = 0;
  while (done < size) {
    const std::size_t step = std::min(size - done, kAtOnce);
    const iovec local{ours + done, step};
    const iovec remote{theirs + done, step};
    const ssize_t moved = way == Direction::kFromUser
                              ? ::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0)
                              : ::process_vm_writev(::getpid(), &local, 1, &remote, 1, 0);
    if (moved > 0) {
      done += static_cast<std::size_t>(moved);
    } else if (moved < 0 && (errno == EPERM || errno == ENOSYS)) {
      return done + copy_by_pipe(ours + done, theirs + done, size - done, way);
    } else {
      break;
    }
  }
  return done;
}

}  // namespace

Result<Mapping> map_shared(int fd, std::uint64_t size_bytes) {
  const int seals = ::fcntl(fd, F_GET_SEALS);
  struct stat status {};
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || ::fstat(fd, &status) != 0 ||
      static_cast<std::uint64_t>(status.st_size) < size_bytes || size_bytes == 0) {
    return errno_error(EPROTO);
  }
  if (size_bytes < kSuperpage) {
    auto mapping = Mapping::shared(fd, size_bytes);
    if (mapping) mapping->exclude_from_fork();
    return mapping;
  }
  void* const hole = aligned_hole(size_bytes);
  if (hole == nullptr) return last_errno();
  void* const at = ::mmap(hole, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
  Mapping mapping = Mapping::adopt(hole, size_bytes);  // on failure: to unmap the hole
  if (at == MAP_FAILED) return last_errno();
  mapping.exclude_from_fork();
  return mapping;
}

std::size_t copy_from_user(std::span<std::byte> to, std::uint64_t from) {
  return copy_user(to.data(), from, to.size(), Direction::kFromUser);
}

std::size_t copy_to_user(std::uint64_t to, std::span<const std::byte> from) {
  return copy_user(const_cast<std::byte*>(from.data()), to, from.size(), Direction::kToUser);
}

}  // namespace tandem::wd::detail
