// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/thinker.hpp"

#include <csignal>
#include <utility>

namespace tandem::screen {

Thinker::Thinker() {
  // Signals are for the thread that draws.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { think(); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Thinker::~Thinker() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Thinker::ask(Question question) {
  {
    const std::lock_guard lock(mutex_);
    question_ = std::move(question);
    answer_.reset();
    waiting_ = true;
    ++asked_;
  }
  changed_.notify_all();
}

void Thinker::forget() {
  const std::lock_guard lock(mutex_);
  question_.reset();
  answer_.reset();
  waiting_ = false;
  ++asked_;
}

bool Thinker::busy() const {
  const std::lock_guard lock(mutex_);
  return waiting_;
}

std::optional<Thinker::Answer> Thinker::answer() {
  const std::lock_guard lock(mutex_);
  if (answer_) waiting_ = false;
  return std::exchange(answer_, std::nullopt);
}

Thinker::Answer Thinker::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return answer_.has_value(); });
  waiting_ = false;
  return *std::exchange(answer_, std::nullopt);
}

Thinker::Answer Thinker::choose(const Question& question) {
  if (agent_ == nullptr || name_ != question.agent || !(agent_->rules() == question.rules)) {
    agent_.reset();
    auto made = kxo::make_agent(question.agent, question.rules);
    if (!made) return Unexpected{made.error()};
    agent_ = std::move(*made);
    name_ = question.agent;
  }
  agent_->begin(question.game);
  const auto cell = agent_->choose(question.position, question.budget);
  if (!cell) return Unexpected{question.agent + ": " + cell.error().message()};
  return *cell;
}

void Thinker::think() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || question_.has_value(); });
    if (stop_) return;
    const Question question = *std::exchange(question_, std::nullopt);
    const std::uint64_t asked = asked_;
    lock.unlock();
    Answer answer = choose(question);
    lock.lock();
    if (asked == asked_) answer_ = std::move(answer);
    changed_.notify_all();
  }
}

}  // namespace tandem::screen
