// SPDX-License-Identifier: Apache-2.0
#include "signals.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <vector>

#include "tandem/base/check.hpp"
#include "tandem/base/mutex.hpp"

namespace tandem::rcutorture {
namespace {

Mutex mutex;
std::vector<pthread_t> threads TANDEM_GUARDED_BY(mutex);
std::atomic<void (*)(void*) noexcept> action{nullptr};
std::atomic<void*> action_context{nullptr};

void on_signal(int) {
  const int saved_errno = errno;
  if (auto* const act = action.load(std::memory_order_acquire)) act(action_context.load());
  errno = saved_errno;
}

}  // namespace

Signalled::Signalled() {
  const MutexLock lock(mutex);
  threads.push_back(::pthread_self());
}

Signalled::~Signalled() {
  const MutexLock lock(mutex);
  threads.erase(std::find_if(threads.begin(), threads.end(), [](pthread_t thread) {
    return ::pthread_equal(thread, ::pthread_self()) != 0;
  }));
}

void set_signal_action(void (*act)(void*) noexcept, void* context) {
  struct sigaction handler {};
  handler.sa_handler = on_signal;
  handler.sa_flags = SA_RESTART;
  ::sigemptyset(&handler.sa_mask);
  TANDEM_CHECK(::sigaction(SIGUSR1, &handler, nullptr) == 0);
  action_context.store(context);
  action.store(act, std::memory_order_release);
}

bool send_signal(unsigned choice) {
  const MutexLock lock(mutex);
  if (threads.empty()) return false;
  return ::pthread_kill(threads[choice % threads.size()], SIGUSR1) == 0;
}

}  // namespace tandem::rcutorture
