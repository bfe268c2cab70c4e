// SPDX-License-Identifier: Apache-2.0
// A child goes on with the queue that its parent opened; what the parent sent stays the parent's.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "tandem/wd/wd.hpp"

namespace wd = tandem::wd;

int main() {
  auto opened = wd::open("memory");
  if (!opened) return std::fprintf(stderr, "fork: %s\n", opened.error().hint), 1;
  wd::Queue& queue = *opened;

  const std::string text = "123456789";
  auto pending = queue.submit(wd::Crc32c{text});

  const pid_t child = ::fork();
  if (child == 0) {
    const auto own = queue.run(wd::Crc32c{text});     // on a new queue, made by this call
    const bool parents = !pending.get().has_value();  // was never sent by this process
    ::_exit(own && own->result == 0xe3069283 && parents ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  const auto mine = pending.get();
  const bool fine = status == 0 && mine && mine->result == 0xe3069283;
  std::printf("parent %s, child %s\n", mine ? "got its result" : mine.error().hint,
              status == 0 ? "went on with the queue" : "failed");
  return fine ? 0 : 1;
}
