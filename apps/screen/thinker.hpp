// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "tandem/base/mutex.hpp"
#include "tandem/base/result.hpp"
#include "tandem/kxo/agent.hpp"

namespace tandem::screen {

/// An agent that thinks on a thread of its own, so that the screen goes on meanwhile.
/// Thread safety: one thread, besides its own.
class Thinker {
 public:
  struct Question {
    std::string agent;  ///< NAME or NAME:OPTION=VALUE,…
    kxo::Rules rules = kxo::Rules::standard();
    kxo::Position position;
    kxo::GameKey game;
    kxo::Budget budget;  ///< without `stop`, which is the thinker's
  };
  using Answer = Result<int, std::string>;

  /// Throws std::system_error where no thread can be started.
  Thinker();
  /// Stops the thought, if there is one. An agent that is being made, learning or solving, is
  /// waited for.
  ~Thinker();
  Thinker(const Thinker&) = delete;
  Thinker& operator=(const Thinker&) = delete;

  /// What was asked before is forgotten: at most one answer comes, to the last question.
  void ask(Question question);
  void forget();
  bool busy() const;
  /// The answer, once.
  std::optional<Answer> answer();
  /// The same, waiting for it. There has to be a question.
  Answer wait();
  /// The same, not longer than `patience`.
  std::optional<Answer> wait_for(std::chrono::milliseconds patience);

 private:
  static void* run(void* thinker);
  void think();
  Answer choose(const Question& question);
  std::optional<Answer> take_answer_locked() TANDEM_REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  std::optional<Question> question_ TANDEM_GUARDED_BY(mutex_);
  std::optional<Answer> answer_ TANDEM_GUARDED_BY(mutex_);
  // Questions, and times they were forgotten.
  std::uint64_t asked_ TANDEM_GUARDED_BY(mutex_) = 0;
  bool waiting_ TANDEM_GUARDED_BY(mutex_) = false;  // for an answer
  bool end_ TANDEM_GUARDED_BY(mutex_) = false;
  // Whether nobody waits for the thought any more. Written with the mutex held; the thread, which
  // reads it while it thinks, takes it back with the next question.
  std::atomic<bool> stop_{false};
  // The thread's own: agents that learn, or are programs, are made once.
  std::string name_;
  std::unique_ptr<kxo::Agent> agent_;
  pthread_t thread_{};
};

}  // namespace tandem::screen
