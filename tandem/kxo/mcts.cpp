// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "tandem/base/cpu.hpp"
#include "tandem/kxo/detail/built_in_agents.hpp"
#include "tandem/kxo/detail/crew.hpp"
#include "tandem/kxo/detail/deadline.hpp"
#include "tandem/kxo/detail/search_tree.hpp"

namespace tandem::kxo::detail {
namespace {

constexpr std::uint64_t kDefaultIterations = 10'000;
/// Of a tree whose counts fit, with what threads plan and with the sign of sums.
constexpr std::uint32_t kMostVisits = std::uint32_t{1} << 30;
constexpr std::uint64_t kTakenAtOnce = 64;
constexpr std::uint64_t kIterationsPerLook = 8;  // at the clock: takes a tenth of an iteration
constexpr std::uint64_t kFewest = 64;            // iterations that threads are woken for
constexpr std::uint64_t kMostThreads = 64;
static_assert(kMostThreads <= Crew::kMostHelpers + 1);

struct Settings {
  Budget own;
  unsigned threads = 1;
  float exploration = 0;
  std::size_t nodes = 0;
  bool reuse = true;
};

/// Monte-Carlo tree search. All threads search one tree, which is kept from move to move; between
/// searches those that help the caller's sleep.
class Mcts final : public Agent {
 public:
  Mcts(const Rules& rules, const Settings& settings)
      : Agent(rules),
        settings_(settings),
        tree_(rules, settings.exploration, settings.nodes, settings.threads),
        crew_(settings.threads - 1, "kxo-mcts", help, this) {}

 private:
  static void help(void* self, unsigned thread) {
    auto* const mine = static_cast<Mcts*>(self);
    mine->search(thread, mine->deadline_);
  }

  void do_begin() override {
    crew_.wait();
    tree_.clear();
  }
  Result<int> do_choose(const Position& position, const Budget& budget) override;
  void search(unsigned thread, const Deadline& deadline) noexcept;
  std::uint64_t take_on() noexcept;
  int best_move() const;

  const Settings settings_;
  SearchTree tree_;
  // Of the search that runs.
  Position position_;
  Deadline deadline_;              // of the helpers, who may look at it after choose() returned
  std::atomic<bool> over_{false};  // tells them
  alignas(kCacheLine) std::atomic<std::uint64_t> left_{0};  // iterations that nobody has taken on
  Crew crew_;                                               // ends first
};

Result<int> Mcts::do_choose(const Position& position, const Budget& budget) {
  Budget limits = tighter(settings_.own, budget);
  const Deadline deadline(limits.time, limits.stop);
  if (limits.unlimited()) limits.work = kDefaultIterations;
  const std::uint64_t most =
      limits.work == 0 ? std::numeric_limits<std::uint64_t>::max() : limits.work;
  crew_.wait();  // for who was late when the last search ended
  if (!settings_.reuse) tree_.clear();
  tree_.set_root(position);
  if (tree_.children().size() == 1) return best_move();
  position_ = position;
  over_.store(false, std::memory_order_relaxed);
  deadline_ = Deadline(limits.time, &over_);
  left_.store(most, std::memory_order_relaxed);
  if (most > kFewest && !tree_.proven()) crew_.open();
  search(0, deadline);
  crew_.close();
  // A helper that has lost its CPU amid an iteration is not waited for when time is up.
  if (deadline.passed()) {
    over_.store(true, std::memory_order_relaxed);
  } else {
    crew_.wait();
  }
  count_work(most - left_.load(std::memory_order_relaxed));
  return best_move();
}

/// Iterates until there is nothing left to do.
void Mcts::search(unsigned thread, const Deadline& deadline) noexcept {
  Random numbers = random(position_, thread);
  while (tree_.visits() < kMostVisits) {
    const std::uint64_t mine = take_on();
    std::uint64_t done = 0;
    for (; done < mine && !tree_.proven(); ++done) {
      if (done % kIterationsPerLook == 0 && deadline.passed()) break;
      tree_.iterate(numbers, thread);
    }
    if (done == mine && mine != 0) continue;
    left_.fetch_add(mine - done, std::memory_order_relaxed);
    break;
  }
  tree_.leave(thread);
}

/// Some of the iterations that are left, for one thread to do.
std::uint64_t Mcts::take_on() noexcept {
  std::uint64_t left = left_.load(std::memory_order_relaxed);
  std::uint64_t mine = 0;
  do {
    mine = std::min(left, kTakenAtOnce);
  } while (!left_.compare_exchange_weak(left, left - mine, std::memory_order_relaxed));
  return mine;
}

/// A move that is proven to win, or else the most visited one that is not proven to lose.
int Mcts::best_move() const {
  const auto children = tree_.children();
  const auto rank = [](const SearchTree::Child& child) {
    const int proven = child.proof == Proof::kLoss ? 0 : child.proof == Proof::kWin ? 2 : 1;
    return std::pair(proven, child.visits);
  };
  const auto best =
      std::max_element(children.begin(), children.end(),
                       [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
  return best->cell;
}

}  // namespace

Result<std::unique_ptr<Agent>, std::string> make_mcts(const Rules& rules, AgentOptions& options) {
  Settings settings;
  settings.own.work = options.number("iterations", 0, 1, std::uint64_t{1} << 40);
  settings.own.time = options.time("time", {});
  settings.threads = static_cast<unsigned>(options.number("threads", 1, 1, kMostThreads));
  settings.exploration = static_cast<float>(options.real("exploration", 1.4, 0, 100));
  settings.nodes = options.number("nodes", 1 << 22, 1, 1 << 30);
  settings.reuse = options.number("reuse", 1, 0, 1) != 0;
  return std::unique_ptr<Agent>(std::make_unique<Mcts>(rules, settings));
}

}  // namespace tandem::kxo::detail
