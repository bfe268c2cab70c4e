// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

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
    kxo::Budget budget;
  };
  using Answer = Result<int, std::string>;

  Thinker();
  /// Waits for the move that is being thought of.
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

 private:
  void think();
  Answer choose(const Question& question);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Question> question_;
  std::optional<Answer> answer_;
  std::uint64_t asked_ = 0;  // questions, and times they were forgotten
  bool waiting_ = false;     // for an answer
  bool stop_ = false;
  // The thread's own: agents that learn, or are programs, are made once.
  std::string name_;
  std::unique_ptr<kxo::Agent> agent_;
  std::thread thread_;
};

}  // namespace tandem::screen
