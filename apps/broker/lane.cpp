// SPDX-License-Identifier: Apache-2.0
#include "apps/broker/lane.hpp"

#include <condition_variable>
#include <cstddef>
#include <list>
#include <map>
#include <new>
#include <system_error>
#include <thread>
#include <utility>

#include "tandem/base/mutex.hpp"

namespace tandem::broker {

struct Lane::State {
  struct Task {
    std::uint32_t account = 0;
    std::function<void()> run;
  };
  /// From one list to another a task goes without taking memory.
  using Tasks = std::list<Task>;
  struct Account {
    Tasks waiting;
    unsigned offered = 0;  // those that stand in `ready`
    unsigned running = 0;
  };

  explicit State(Options given) : options(given) {}

  const Options options;
  Mutex mutex;
  std::condition_variable_any changed;
  std::map<std::uint32_t, Account> accounts TANDEM_GUARDED_BY(mutex);  // those with any task
  /// What may run now, in turn. Each wakes or starts one thread.
  Tasks ready TANDEM_GUARDED_BY(mutex);
  std::size_t waiting TANDEM_GUARDED_BY(mutex) = 0;  // here and there
  unsigned threads TANDEM_GUARDED_BY(mutex) = 0;
  /// Threads that will look at `ready` before they do anything else: asleep, told to wake up, or
  /// just started.
  unsigned coming TANDEM_GUARDED_BY(mutex) = 0;
  bool stopping TANDEM_GUARDED_BY(mutex) = false;

  /// Lets as many tasks of an account run as it may have running at a time.
  void offer_locked(Account& account) TANDEM_REQUIRES(mutex) {
    while (!account.waiting.empty() &&
           account.running + account.offered < options.threads_per_account) {
      ++account.offered;
      ready.splice(ready.end(), account.waiting, account.waiting.begin());
    }
  }
};

Lane::Lane(Options options) : state_(std::make_shared<State>(options)) {
  const MutexLock lock(state_->mutex);
  ready_ = start_thread_locked(state_);
}

Lane::~Lane() { stop(std::chrono::milliseconds(0)); }

/// The caller holds state->mutex.
bool Lane::start_thread_locked(const std::shared_ptr<State>& state)
    TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  try {
    std::thread([state] { work(state); }).detach();
  } catch (const std::system_error&) {
    return false;
  } catch (const std::bad_alloc&) {
    return false;
  }
  ++state->threads;
  ++state->coming;
  return true;
}

void Lane::run(std::uint32_t account, std::function<void()> task) {
  State::Tasks one;
  one.push_back({account, std::move(task)});
  const MutexLock lock(state_->mutex);
  if (state_->stopping) return;
  State::Account& of = state_->accounts[account];  // the last that may fail
  of.waiting.splice(of.waiting.end(), one);
  ++state_->waiting;
  state_->offer_locked(of);
  if (state_->ready.size() > state_->coming && state_->threads < state_->options.threads_max) {
    start_thread_locked(state_);  // none to be had: the ones we have get to it
  }
  state_->changed.notify_one();
}

void Lane::work(const std::shared_ptr<State>& state) {
  state->mutex.lock();
  for (;;) {
    while (state->ready.empty()) {
      if (state->stopping && state->waiting == 0) {
        --state->coming;
        --state->threads;
        state->changed.notify_all();
        state->mutex.unlock();
        return;
      }
      state->changed.wait(state->mutex);
    }
    --state->coming;
    State::Tasks task;
    task.splice(task.end(), state->ready, state->ready.begin());
    const std::uint32_t id = task.front().account;
    State::Account& account = state->accounts.at(id);  // stays where it is while it has tasks
    --account.offered;
    ++account.running;
    --state->waiting;
    state->mutex.unlock();
    task.front().run();
    task.clear();  // lets go of what it held, before it counts as done
    state->mutex.lock();
    ++state->coming;
    --account.running;
    state->offer_locked(account);
    if (account.running + account.offered == 0 && account.waiting.empty()) {
      state->accounts.erase(id);
    }
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
