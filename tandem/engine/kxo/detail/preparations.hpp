// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "tandem/base/mutex.hpp"
#include "tandem/base/result.hpp"
#include "tandem/engine/kxo/kxo.hpp"

namespace tandem::engine::kxo::detail {

/// What agents need before their first move and what takes long (AgentSource::prepare()). A thread
/// of its own makes one after the other and keeps the last few for those who come for them; it is
/// started when it is needed first. Who waited gets what was made, however much was made since: it
/// is there as long as somebody waits for it. Who waited is also told that nothing is needed, or
/// that it failed; neither is kept for others: it would take the place of something, and who comes
/// after a failure may have more luck.
///
/// Fairness: tenants take turns, each with what it asked for first. One may wait for so many at a
/// time; what others wait for, too, counts for each of them and is made once.
/// Thread safety: any thread. Asking blocks for a few instructions, one for each tenant that waits.
class Preparations {
 private:
  struct Attempt;

 public:
  using Thing = std::shared_ptr<const void>;
  /// What somebody asked for and waits for, so as to hear what became of just that.
  using Waiting = std::shared_ptr<const Attempt>;
  /// A tenant: whatever it has one of.
  using Tenant = std::shared_ptr<const void>;

  /// `done` is called on that thread, with no lock held, whenever there is something more.
  /// `most`: what one tenant may wait for, at least 1. Errors: std::bad_alloc.
  Preparations(std::shared_ptr<const AgentSource> source, std::size_t most,
               std::function<void()> done);
  /// Waits for what is being made.
  ~Preparations();

  /// Has what `player` needs made before somebody asks for it.
  /// Returns: false when the tenant waits for too many others. Errors: std::bad_alloc.
  bool announce(const Tenant& tenant, std::uint8_t player, const tandem::kxo::Rules& rules);
  /// What `player` needs in games by `rules`; nullptr: it needs nothing. Nothing: it is not there
  /// yet; who asks again brings `waiting` as it was left. Where no thread can be started the caller
  /// makes it.
  /// Errors: ENOMEM it could not be made; who asks next has it tried again. std::bad_alloc.
  std::optional<Result<Thing>> find(const Tenant& tenant, std::uint8_t player,
                                    const tandem::kxo::Rules& rules, Waiting& waiting);

 private:
  static constexpr std::size_t kMost = 4;

  struct Need {
    std::uint8_t player;
    tandem::kxo::Rules rules;
    friend bool operator==(const Need&, const Need&) = default;
  };
  /// Shared by all who wait for it. Guarded by mutex_, but for `need`.
  struct Attempt {
    explicit Attempt(const Need& wanted) : need(wanted) {}
    const Need need;
    std::optional<Result<Thing>> answer{};  // once it is over
  };
  /// What one tenant waits for, first come first; never empty.
  struct Line {
    Tenant tenant;
    std::vector<std::shared_ptr<Attempt>> wanted;
  };
  struct Kept {
    Need need;
    Thing thing;
  };

  static void* thread_main(void* self);
  void work();
  Result<Thing> make(const Need& need) const;
  bool start_locked() TANDEM_REQUIRES(mutex_);
  const Kept* kept_locked(const Need& need) const TANDEM_REQUIRES(mutex_);
  Waiting attempt_locked(const Tenant& tenant, const Need& need) TANDEM_REQUIRES(mutex_);
  std::shared_ptr<Attempt> next_locked() TANDEM_REQUIRES(mutex_);
  Thing end_locked(Attempt& attempt, Result<Thing> made) TANDEM_REQUIRES(mutex_);

  const std::shared_ptr<const AgentSource> source_;
  const std::size_t most_;
  const std::function<void()> done_;
  Mutex mutex_;
  std::condition_variable_any changed_;
  std::optional<pthread_t> thread_ TANDEM_GUARDED_BY(mutex_);
  bool stop_ TANDEM_GUARDED_BY(mutex_) = false;
  std::list<Line> lines_ TANDEM_GUARDED_BY(mutex_);   // whose turn is next stands first
  std::vector<Kept> kept_ TANDEM_GUARDED_BY(mutex_);  // what came last stands last
};

}  // namespace tandem::engine::kxo::detail
