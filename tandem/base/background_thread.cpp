// SPDX-License-Identifier: Apache-2.0
#include "tandem/base/background_thread.hpp"

#include <sched.h>
#include <unistd.h>

#include <cerrno>

namespace tandem {
namespace {

bool is_real_time(int policy) noexcept {
  return policy != SCHED_OTHER && policy != SCHED_BATCH && policy != SCHED_IDLE;
}

/// Of a thread to be started; what is not said it inherits.
class Attributes {
 public:
  Attributes() noexcept { ::pthread_attr_init(&attributes_); }
  ~Attributes() { ::pthread_attr_destroy(&attributes_); }
  Attributes(const Attributes&) = delete;
  Attributes& operator=(const Attributes&) = delete;

  void run_where_main_does() noexcept {
    cpu_set_t cpus;
    if (::sched_getaffinity(::getpid(), sizeof cpus, &cpus) != 0) return;
    ::pthread_attr_setaffinity_np(&attributes_, sizeof cpus, &cpus);
  }
  void schedule(int policy, int priority) noexcept {
    const sched_param parameter{priority};
    ::pthread_attr_setinheritsched(&attributes_, PTHREAD_EXPLICIT_SCHED);
    ::pthread_attr_setschedpolicy(&attributes_, policy);
    ::pthread_attr_setschedparam(&attributes_, &parameter);
  }
  const pthread_attr_t* get() const noexcept { return &attributes_; }

 private:
  pthread_attr_t attributes_;
};

/// Whether it could be started with other attributes.
bool refused(int error) noexcept { return error != 0 && error != EAGAIN; }

}  // namespace

int start_background_thread(pthread_t& thread, const char* name, int fifo_priority,
                            void* (*main)(void*), void* argument) noexcept {
  const SignalsBlocked blocked;
  int error = EPERM;
  if (fifo_priority > 0) {
    Attributes urgent;
    urgent.run_where_main_does();
    urgent.schedule(SCHED_FIFO, fifo_priority);
    error = ::pthread_create(&thread, urgent.get(), main, argument);
  }
  if (refused(error)) {
    Attributes plain;
    plain.run_where_main_does();
    if (is_real_time(::sched_getscheduler(0))) plain.schedule(SCHED_OTHER, 0);
    error = ::pthread_create(&thread, plain.get(), main, argument);
  }
  // In a thread's own cpuset, say, main's CPUs may not be had.
  if (refused(error)) error = ::pthread_create(&thread, nullptr, main, argument);
  if (error == 0) ::pthread_setname_np(thread, name);
  return error;
}

}  // namespace tandem
