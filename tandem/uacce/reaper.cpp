// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/reaper.hpp"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "tandem/base/background_thread.hpp"

namespace tandem::uacce::detail {
namespace {

using std::chrono::milliseconds;

// Between two tries; longer and longer while none succeeds.
constexpr milliseconds kPauseMin{1};
constexpr milliseconds kPauseMax{250};

}  // namespace

void Reaper::add(Attempt attempt) {
  {
    const MutexLock lock(mutex_);
    if (stopped_) return;
    attempts_.push_back(std::move(attempt));
    if (!thread_.joinable()) {
      const SignalsBlocked blocked;
      thread_ = std::thread([this] { run(); });
    }
  }
  changed_.notify_all();
}

void Reaper::stop() {
  std::thread thread;
  std::vector<Attempt> left;
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
    thread = std::move(thread_);
    left.swap(attempts_);
  }
  changed_.notify_all();
  if (thread.joinable()) thread.join();
}

void Reaper::run() {
  auto pause = kPauseMin;
  std::vector<Attempt> trying;
  for (;;) {
    {
      const MutexLock lock(mutex_);
      while (!stopped_ && attempts_.empty() && trying.empty()) changed_.wait(mutex_);
      if (!stopped_ && attempts_.empty()) changed_.wait_for(mutex_, pause);
      if (stopped_) return;
      if (!attempts_.empty()) pause = kPauseMin;
      std::move(attempts_.begin(), attempts_.end(), std::back_inserter(trying));
      attempts_.clear();
    }
    const auto done = std::erase_if(trying, [](const Attempt& attempt) { return attempt(); });
    pause = done != 0 ? kPauseMin : std::min(pause * 2, kPauseMax);
  }
}

}  // namespace tandem::uacce::detail
