// SPDX-License-Identifier: Apache-2.0
#include "tandem/base/rseq.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "tandem/base/features.hpp"

namespace tandem {
namespace {

#ifdef TANDEM_HAS_RSEQ
/// The registered area of the calling thread; the kernel writes it.
const volatile struct rseq& area() noexcept {
#if defined(__x86_64__)
  const char* thread_pointer;
  asm("movq %%fs:0, %0" : "=r"(thread_pointer));
#else
  const char* const thread_pointer = static_cast<const char*>(__builtin_thread_pointer());
#endif
  return *reinterpret_cast<const volatile struct rseq*>(thread_pointer + __rseq_offset);
}
#endif

/// The highest number in a list such as "0-3,8-11"; -1 if there is none.
long highest_in_list(const char* list) noexcept {
  long highest = -1;
  long number = -1;
  for (; *list != '\0'; ++list) {
    const bool digit = *list >= '0' && *list <= '9';
    number = digit ? std::max(number, 0L) * 10 + (*list - '0') : -1;
    if (number > 1'000'000) return -1;
    highest = std::max(highest, number);
  }
  return highest;
}

std::uint32_t read_present_cpus() noexcept {
  char list[512] = {};
  long count = 0;
  // Not open(), read() and close(): they are cancellation points, and callers are noexcept.
  const long file =
      ::syscall(SYS_openat, AT_FDCWD, "/sys/devices/system/cpu/present", O_RDONLY | O_CLOEXEC);
  if (file >= 0) {
    if (::syscall(SYS_read, file, list, sizeof list - 1) > 0) count = highest_in_list(list) + 1;
    ::syscall(SYS_close, file);
  }
  if (count < 1) count = ::sysconf(_SC_NPROCESSORS_CONF);
  return static_cast<std::uint32_t>(std::max(count, 1L));
}

}  // namespace

bool rseq_available() noexcept {
#ifdef TANDEM_HAS_RSEQ
  static const bool available =
      feature_allowed(Feature::kRseq) && __rseq_size != 0 && static_cast<int>(area().cpu_id) >= 0;
  return available;
#else
  return false;
#endif
}

int rseq_cpu() noexcept {
#ifdef TANDEM_HAS_RSEQ
  if (rseq_available()) {
    const int cpu = static_cast<int>(area().cpu_id);
    if (cpu >= 0) return cpu;
  }
#endif
  return ::sched_getcpu();
}

std::uint32_t present_cpus() noexcept {
  static const std::uint32_t count = read_present_cpus();
  return count;
}

}  // namespace tandem
