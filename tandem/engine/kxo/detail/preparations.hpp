// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "tandem/base/mutex.hpp"
#include "tandem/base/result.hpp"
#include "tandem/engine/kxo/kxo.hpp"

namespace tandem::engine::kxo::detail {

/// What agents need before their first move and what takes long (AgentSource::prepare()). A thread
/// of its own makes one after the other, in the order in which they were asked for, and keeps the
/// last few for those who come for them; it is started when it is needed first. Who waited is
/// told that nothing is needed, or that it failed; neither is kept: it would take the place of
/// something, and who comes after a failure may have more luck.
/// Thread safety: any thread. Asking blocks for a few instructions.
class Preparations {
 private:
  struct Attempt;

 public:
  using Thing = std::shared_ptr<const void>;
  /// What somebody asked for and waits for, so as to hear what became of just that.
  using Waiting = std::shared_ptr<const Attempt>;

  /// `done` is called on that thread, with no lock held, whenever there is something more.
  Preparations(std::shared_ptr<const AgentSource> source, std::function<void()> done)
      : source_(std::move(source)), done_(std::move(done)) {}
  /// Waits for what is being made.
  ~Preparations();

  /// What `player` needs in games by `rules`; nullptr: it needs nothing. Nothing: it is not there
  /// yet, and will be made; who asks again brings `waiting` as it was left. Where no thread can be
  /// started the caller makes it.
  /// Errors: ENOMEM it could not be made; who asks next has it tried again.
  std::optional<Result<Thing>> find(std::uint8_t player, const tandem::kxo::Rules& rules,
                                    Waiting& waiting);

 private:
  static constexpr std::size_t kMost = 4;

  struct Need {
    std::uint8_t player;
    tandem::kxo::Rules rules;
    friend bool operator==(const Need&, const Need&) = default;
  };
  /// Shared by all who wait for it.
  struct Attempt {
    Need need;
    std::optional<Result<Thing>> answer{};  // where nothing is kept; guarded by mutex_
  };
  struct Kept {
    Need need;
    Thing thing;
  };

  static void* thread_main(void* self);
  void work();
  Result<Thing> make(const Need& need) const;
  bool start_locked() TANDEM_REQUIRES(mutex_);
  Waiting attempt_locked(const Need& need) TANDEM_REQUIRES(mutex_);

  const std::shared_ptr<const AgentSource> source_;
  const std::function<void()> done_;
  Mutex mutex_;
  std::condition_variable_any changed_;
  std::optional<pthread_t> thread_ TANDEM_GUARDED_BY(mutex_);
  bool stop_ TANDEM_GUARDED_BY(mutex_) = false;
  // The first one is being made.
  std::vector<std::shared_ptr<Attempt>> wanted_ TANDEM_GUARDED_BY(mutex_);
  std::vector<Kept> kept_ TANDEM_GUARDED_BY(mutex_);  // what came last stands last
};

}  // namespace tandem::engine::kxo::detail
