// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/thinker.hpp"

#include <system_error>
#include <utility>

#include "tandem/base/background_thread.hpp"

namespace tandem::screen {

Thinker::Thinker() {
  // Signals are for the thread that draws.
  const int error = start_background_thread(thread_, "kxo-thinker", 0, run, this);
  if (error != 0) {
    throw std::system_error(error, std::generic_category(), "no thread can be started to think");
  }
}

Thinker::~Thinker() {
  {
    const MutexLock lock(mutex_);
    end_ = true;
    stop_.store(true, std::memory_order_relaxed);
  }
  changed_.notify_all();
  ::pthread_join(thread_, nullptr);
}

void Thinker::ask(Question question) {
  {
    const MutexLock lock(mutex_);
    question_ = std::move(question);
    answer_.reset();
    waiting_ = true;
    ++asked_;
    stop_.store(true, std::memory_order_relaxed);
  }
  changed_.notify_all();
}

void Thinker::forget() {
  const MutexLock lock(mutex_);
  question_.reset();
  answer_.reset();
  waiting_ = false;
  ++asked_;
  stop_.store(true, std::memory_order_relaxed);
}

bool Thinker::busy() const {
  const MutexLock lock(mutex_);
  return waiting_;
}

std::optional<Thinker::Answer> Thinker::take_answer_locked() {
  if (answer_) waiting_ = false;
  return std::exchange(answer_, std::nullopt);
}

std::optional<Thinker::Answer> Thinker::answer() {
  const MutexLock lock(mutex_);
  return take_answer_locked();
}

Thinker::Answer Thinker::wait() {
  for (;;) {
    if (auto answer = wait_for(std::chrono::hours(1))) return std::move(*answer);
  }
}

std::optional<Thinker::Answer> Thinker::wait_for(std::chrono::milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  const MutexLock lock(mutex_);
  while (!answer_) {
    if (changed_.wait_until(mutex_, until) == std::cv_status::timeout) break;
  }
  return take_answer_locked();
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
  kxo::Budget budget = question.budget;
  budget.stop = &stop_;
  const auto cell = agent_->choose(question.position, budget);
  if (!cell) return Unexpected{question.agent + ": " + kxo::why_no_move(cell.error())};
  return *cell;
}

void* Thinker::run(void* thinker) {
  static_cast<Thinker*>(thinker)->think();
  return nullptr;
}

void Thinker::think() {
  for (;;) {
    std::optional<Question> question;
    std::uint64_t asked = 0;
    {
      const MutexLock lock(mutex_);
      while (!end_ && !question_) changed_.wait(mutex_);
      if (end_) return;
      question = std::exchange(question_, std::nullopt);
      asked = asked_;
      stop_.store(false, std::memory_order_relaxed);
    }
    Answer answer = choose(*question);
    const MutexLock lock(mutex_);
    if (asked == asked_) answer_ = std::move(answer);
    changed_.notify_all();
  }
}

}  // namespace tandem::screen
