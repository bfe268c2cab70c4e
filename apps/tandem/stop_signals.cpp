// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/stop_signals.hpp"

#include <atomic>
#include <csignal>
#include <cstdlib>

namespace tandem::cli {
namespace {

// Written by the handler, on whatever thread; read by all.
std::atomic<int> noted{0};
static_assert(std::atomic<int>::is_always_lock_free);

void note(int signal) {
  struct sigaction action {};
  action.sa_handler = [](int which) { noted.store(which, std::memory_order_relaxed); };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  struct sigaction before {};
  ::sigaction(signal, nullptr, &before);
  if (before.sa_handler != SIG_IGN) ::sigaction(signal, &action, nullptr);
}

}  // namespace

void note_stop_signals(std::initializer_list<int> more) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) note(signal);
  for (const int signal : more) note(signal);
}

int stop_signal() noexcept { return noted.load(std::memory_order_relaxed); }

void end_by(int signal) {
  std::signal(signal, SIG_DFL);
  std::raise(signal);
  std::_Exit(128 + signal);
}

}  // namespace tandem::cli
