// SPDX-License-Identifier: Apache-2.0
#include "apps/broker/lane.hpp"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <system_error>
#include <thread>

#include "tandem/base/mutex.hpp"

namespace tandem::broker {

struct Lane::State {
  struct Task {
    std::uint32_t uid;
    std::function<void()> run;
  };

  explicit State(Options given) : options(given) {}

  const Options options;
  Mutex mutex;
  std::condition_variable_any changed;
  std::deque<Task> waiting TANDEM_GUARDED_BY(mutex);
  std::map<std::uint32_t, unsigned> running_of TANDEM_GUARDED_BY(mutex);
  unsigned threads TANDEM_GUARDED_BY(mutex) = 0;
  unsigned idle TANDEM_GUARDED_BY(mutex) = 0;
  bool stopping TANDEM_GUARDED_BY(mutex) = false;

  std::deque<Task>::iterator next_locked() TANDEM_REQUIRES(mutex) {
    auto task = waiting.begin();
    for (; task != waiting.end(); ++task) {
      const auto running = running_of.find(task->uid);
      if (running == running_of.end() || running->second < options.threads_per_uid) break;
    }
    return task;
  }
};

Lane::Lane(Options options) : state_(std::make_shared<State>(options)) {}

Lane::~Lane() { stop(std::chrono::milliseconds(0)); }

void Lane::run(std::uint32_t uid, std::function<void()> task) {
  const MutexLock lock(state_->mutex);
  if (state_->stopping) return;
  state_->waiting.push_back({uid, std::move(task)});
  if (state_->idle == 0 && state_->threads < state_->options.threads_max) {
    try {
      std::thread([state = state_] { work(state); }).detach();
      ++state_->threads;
    } catch (const std::system_error&) {
      // No thread to be had: the ones we have get to it.
    }
  }
  state_->changed.notify_one();
}

void Lane::work(const std::shared_ptr<State>& state) {
  state->mutex.lock();
  for (;;) {
    auto next = state->next_locked();
    while (next == state->waiting.end()) {
      if (state->stopping && state->waiting.empty()) {
        --state->threads;
        state->changed.notify_all();
        state->mutex.unlock();
        return;
      }
      ++state->idle;
      state->changed.wait(state->mutex);
      --state->idle;
      next = state->next_locked();
    }
    State::Task task = std::move(*next);
    state->waiting.erase(next);
    ++state->running_of[task.uid];
    state->mutex.unlock();
    task.run();
    task.run = nullptr;  // lets go of what it held, before it counts as done
    state->mutex.lock();
    if (--state->running_of[task.uid] == 0) state->running_of.erase(task.uid);
    if (!state->waiting.empty()) state->changed.notify_one();
  }
}

bool Lane::stop(std::chrono::milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  const MutexLock lock(state_->mutex);
  state_->stopping = true;
  state_->changed.notify_all();
  while (state_->threads > 0) {
    if (state_->changed.wait_until(state_->mutex, until) == std::cv_status::timeout) break;
  }
  return state_->threads == 0;
}

}  // namespace tandem::broker
