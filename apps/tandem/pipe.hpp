// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>

#include "apps/tandem/cli.hpp"
#include "tandem/base/result.hpp"
#include "tandem/base/unique_fd.hpp"

namespace tandem::cli {

/// Over which a child tells its parent something, or the other way.
struct Pipe {
  UniqueFd read_end, write_end;
  static Result<Pipe, Failure> make() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return Unexpected{from_errno("a pipe", errno)};
    return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
  }
};

/// Returns: whether `size` bytes came, in one piece and in time.
inline bool read_exactly(int fd, void* to, std::size_t size, std::chrono::milliseconds patience) {
  pollfd readable{fd, POLLIN, 0};
  if (::poll(&readable, 1, static_cast<int>(patience.count())) != 1) return false;
  return ::read(fd, to, size) == static_cast<ssize_t>(size);
}

}  // namespace tandem::cli
