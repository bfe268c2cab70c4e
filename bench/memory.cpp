// SPDX-License-Identifier: Apache-2.0
#include "bench/memory.hpp"

#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "tandem/base/check.hpp"

namespace tandem::bench {
namespace {

/// The most bytes that a child which does `work` had in memory.
double bytes_of_child(const std::function<void()>& work) {
  const pid_t child = ::fork();
  TANDEM_CHECK(child >= 0);
  if (child == 0) {
    work();
    ::_exit(0);
  }
  int status = 0;
  rusage usage{};
  TANDEM_CHECK(::wait4(child, &status, 0, &usage) == child && status == 0);
  return static_cast<double>(usage.ru_maxrss) * 1024;
}

}  // namespace

double held_bytes(std::string_view what) {
  ::malloc_trim(0);
  std::ifstream file("/proc/self/smaps_rollup");
  const std::string field = std::string(what) + ":";
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(field)) return 1024 * std::stod(line.substr(field.size()));
  }
  TANDEM_CHECK(false);
}

double peak_bytes(const std::function<void()>& work) {
  const double before = bytes_of_child([] {});
  return std::max(0.0, bytes_of_child(work) - before);
}

}  // namespace tandem::bench
