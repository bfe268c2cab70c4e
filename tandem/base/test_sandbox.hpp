// SPDX-License-Identifier: Apache-2.0
/// Sandboxes as programs make them with seccomp. For tests; not installed.
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <iterator>

namespace tandem {

/// From here on, system call `number` of this thread gets one answer and all others another
/// (SECCOMP_RET_…). Returns: whether the kernel does so.
inline bool filter_system_calls(long number, std::uint32_t answer, std::uint32_t others) {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(number), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, answer),
      BPF_STMT(BPF_RET | BPF_K, others),
  };
  const sock_fprog program{static_cast<unsigned short>(std::size(filter)), filter};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/// The kernel refuses system call `number` to this thread with `error`.
inline bool refuse_system_call(long number, int error) {
  return filter_system_calls(number, SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error),
                             SECCOMP_RET_ALLOW);
}

/// Any system call but _exit() ends the process. Exits with 77 where that cannot be had.
inline void forbid_system_calls() {
  if (!filter_system_calls(SYS_exit_group, SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS)) {
    ::_exit(77);
  }
}

}  // namespace tandem
