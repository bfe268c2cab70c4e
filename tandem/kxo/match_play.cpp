// SPDX-License-Identifier: Apache-2.0
// The threads that play a match.
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

#include "tandem/base/background_thread.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/kxo/match.hpp"

namespace tandem::kxo {
namespace {

using Agents = std::vector<std::unique_ptr<Agent>>;
using Games = std::pair<GameRecord, GameRecord>;

/// Plays pairs of a match on threads of its own, in any order, and hands them out in that of their
/// numbers.
///
/// The match belongs to the caller: the threads look only at what does not change while they run,
/// which are its settings and its pairings.
class Workers {
 public:
  explicit Workers(const Match& match)
      : match_(match), next_(match.played_pairs()), wanted_(next_) {}
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  /// One more thread, that plays with `agents`. Returns 0 or an errno.
  int start(Agents& agents);
  /// The next pair in turn; nothing when it was not ready after `patience`.
  std::optional<Games> take(std::chrono::milliseconds patience);

 private:
  struct Seat {
    Workers* workers = nullptr;
    Agents* agents = nullptr;
    pthread_t thread{};
  };
  static void* run(void* seat);
  void work(Agents& agents);
  std::optional<GameRecord> play_game(Agent& o, Agent& x, std::uint64_t pair, int swapped) const;

  const Match& match_;
  std::vector<std::unique_ptr<Seat>> seats_;
  std::atomic<bool> stop_{false};  // the caller writes it, threads read it
  Mutex mutex_;
  std::condition_variable_any changed_;
  std::uint64_t next_ TANDEM_GUARDED_BY(mutex_);    // to be begun
  std::uint64_t wanted_ TANDEM_GUARDED_BY(mutex_);  // by take()
  std::map<std::uint64_t, Games> finished_ TANDEM_GUARDED_BY(mutex_);
};

int Workers::start(Agents& agents) {
  auto seat = std::make_unique<Seat>();
  seat->workers = this;
  seat->agents = &agents;
  const int error = start_background_thread(seat->thread, "kxo-match", 0, run, seat.get());
  if (error == 0) seats_.push_back(std::move(seat));
  return error;
}

Workers::~Workers() {
  stop_.store(true, std::memory_order_relaxed);
  for (const auto& seat : seats_) ::pthread_join(seat->thread, nullptr);
}

std::optional<Games> Workers::take(std::chrono::milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  const MutexLock lock(mutex_);
  for (;;) {
    const auto first = finished_.begin();
    if (first != finished_.end() && first->first == wanted_) {
      Games games = std::move(first->second);
      finished_.erase(first);
      ++wanted_;
      return games;
    }
    if (changed_.wait_until(mutex_, until) == std::cv_status::timeout) return std::nullopt;
  }
}

void* Workers::run(void* seat) {
  auto* const mine = static_cast<Seat*>(seat);
  mine->workers->work(*mine->agents);
  return nullptr;
}

void Workers::work(Agents& agents) {
  for (;;) {
    std::uint64_t pair = 0;
    {
      const MutexLock lock(mutex_);
      if (next_ == match_.planned_pairs()) return;
      pair = next_++;
    }
    const auto [first, second, round] = match_.pairing(pair);
    auto game = play_game(*agents[first], *agents[second], pair, 0);
    if (!game) return;
    auto swapped = play_game(*agents[second], *agents[first], pair, 1);
    if (!swapped) return;
    const MutexLock lock(mutex_);
    finished_.try_emplace(pair, std::move(*game), std::move(*swapped));
    changed_.notify_all();
  }
}

/// Nothing when the match stops meanwhile.
std::optional<GameRecord> Workers::play_game(Agent& o, Agent& x, std::uint64_t pair,
                                             int swapped) const {
  const MatchSettings& settings = match_.settings();
  GameRecord record{match_.opening(pair), ""};
  Position position;
  for (const std::uint8_t cell : record.cells) position = position.after(cell);
  const GameKey key{settings.seed, 2 * pair + static_cast<std::uint64_t>(swapped)};
  Budget budget = settings.budget;
  budget.stop = &stop_;
  o.begin(key);
  x.begin(key);
  while (settings.rules.outcome(position) == Outcome::kOpen) {
    if (stop_.load(std::memory_order_relaxed)) return std::nullopt;
    Agent& mover = position.to_move() == Player::kO ? o : x;
    const Result<int> cell = mover.choose(position, budget);
    if (!cell) {
      record.failure = cell.error().message();
      return record;
    }
    record.cells.push_back(static_cast<std::uint8_t>(*cell));
    position = position.after(*cell);
  }
  return record;
}

}  // namespace

Result<void, std::string> Match::play(unsigned threads, const std::function<bool()>& go_on) {
  if (over()) return {};
  std::vector<Agents> others(std::max(1U, threads) - 1);
  for (Agents& agents : others) {
    for (const std::string& player : settings_.players) {
      auto agent = make_agent(player, settings_.rules);
      if (!agent) return Unexpected{agent.error()};
      agents.push_back(std::move(*agent));
    }
  }
  Workers workers(*this);
  if (const int error = workers.start(agents_); error != 0) {
    return Unexpected{std::string("no thread can be started: ") + std::strerror(error)};
  }
  // Fewer threads take longer, and no more.
  for (Agents& agents : others) (void)workers.start(agents);
  while (!over()) {
    if (go_on && !go_on()) return {};
    auto games = workers.take(std::chrono::milliseconds(100));
    if (!games) continue;
    if (auto taken = append(std::move(games->first), std::move(games->second)); !taken) {
      return taken;
    }
  }
  return {};
}

}  // namespace tandem::kxo
