// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>

#include <cerrno>

namespace tandem {

/// For the first line of main(): puts something in the place of standard descriptors that are
/// closed. Otherwise the next file, socket or memory to be opened gets the number, is taken for
/// standard input, or gets what is meant for standard error.
///
/// Reading the stand-in for standard input fails, and so does writing the other ones (EBADF), as
/// if they were still closed. Returns: false when that could not be done.
inline bool reserve_standard_descriptors() noexcept {
  for (int fd = 0; fd <= 2; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest number that is free is `fd`: those below have been seen to.
    if (::open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd) return false;
  }
  return true;
}

}  // namespace tandem
