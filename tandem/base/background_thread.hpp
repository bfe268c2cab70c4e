// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>

#include <csignal>

namespace tandem {

/// While it lives, no signal handler runs on the calling thread, nor ever on threads started
/// meanwhile, which inherit the mask.
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

/// Starts a thread that serves the program without being part of it. Whichever thread happens to
/// need it first must not shape it:
///
///   * signals are for the program's threads: here all are blocked;
///   * it is not real-time because its starter is. With `fifo_priority` above 0 it runs under
///     SCHED_FIFO at that priority, if the process may have that, and else like any other;
///   * it may run where the process's main thread may, also where its starter is pinned.
///
/// `name`: at most 15 characters. The thread is joinable. Returns: 0 or an errno, mostly EAGAIN.
int start_background_thread(pthread_t& thread, const char* name, int fifo_priority,
                            void* (*main)(void*), void* argument) noexcept;

}  // namespace tandem
