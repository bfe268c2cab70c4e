// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>

#include <cerrno>

/// What calls leave of their caller's thread as they found it.
namespace tandem::rcu::detail {

/// Leaves errno as it was: for what a signal handler may call, and for the ends of sections, which
/// stand between a call that failed and the look at why.
class KeepErrno {
 public:
  KeepErrno() = default;
  KeepErrno(const KeepErrno&) = delete;
  KeepErrno& operator=(const KeepErrno&) = delete;
  ~KeepErrno() { errno = value_; }

 private:
  const int value_ = errno;
};

/// Puts pthread_cancel() off while it lives: for calls that are noexcept, where unwinding would end
/// the program, and that others wait for or that call functions of the program's.
class NotCancelled {
 public:
  NotCancelled() noexcept { (void)::pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
  ~NotCancelled() { (void)::pthread_setcancelstate(before_, nullptr); }
  NotCancelled(const NotCancelled&) = delete;
  NotCancelled& operator=(const NotCancelled&) = delete;

 private:
  int before_ = 0;
};

}  // namespace tandem::rcu::detail
