// SPDX-License-Identifier: Apache-2.0
#include <pthread.h>

#include <algorithm>
#include <array>
#include <limits>
#include <new>
#include <utility>
#include <vector>

#include "tandem/base/background_thread.hpp"
#include "tandem/kxo/detail/built_in_agents.hpp"
#include "tandem/kxo/detail/deadline.hpp"
#include "tandem/kxo/detail/search_tree.hpp"

namespace tandem::kxo::detail {
namespace {

constexpr std::uint64_t kDefaultIterations = 10'000;

/// One tree, searched by one thread.
struct Search {
  explicit Search(SearchTree empty) : tree(std::move(empty)) {}

  SearchTree tree;
  Random random{GameKey{}};
  std::uint64_t most_iterations = 0;
  Deadline deadline;
  std::uint64_t iterations = 0;

  void run() noexcept {
    iterations = 0;
    try {
      while (!tree.proven() && iterations < most_iterations) {
        // The clock takes as long as a tenth of an iteration.
        if (iterations % 8 == 0 && deadline.passed()) return;
        tree.iterate(random);
        ++iterations;
      }
    } catch (const std::bad_alloc&) {
      // The tree cannot grow: the move is chosen by what was found so far.
    }
  }
};

void* run_search(void* search) {
  static_cast<Search*>(search)->run();
  return nullptr;
}

/// Monte-Carlo tree search. Each thread has a tree of its own, and the visits of all are summed:
/// nothing is shared while they search, so that a limit of iterations gives the same move each time
/// with any number of threads.
class Mcts final : public Agent {
 public:
  Mcts(const Rules& rules, AgentOptions& options) : Agent(rules) {
    own_.work = options.number("iterations", 0, 1, std::uint64_t{1} << 40);
    own_.time = options.time("time", {});
    const auto threads = options.number("threads", 1, 1, 64);
    const auto exploration = static_cast<float>(options.real("exploration", 1.4, 0, 100));
    const auto nodes = options.number("nodes", 1 << 22, 1, 1 << 30);
    reuse_ = options.number("reuse", 1, 0, 1) != 0;
    for (std::uint64_t i = 0; i < threads; ++i) {
      searches_.emplace_back(SearchTree(rules, exploration, nodes / threads));
    }
  }

 private:
  void do_begin() override {
    for (Search& search : searches_) search.tree.clear();
  }
  Result<int> do_choose(const Position& position, const Budget& budget) override;
  int best_move() const;

  Budget own_;
  bool reuse_ = true;
  std::vector<Search> searches_;
};

Result<int> Mcts::do_choose(const Position& position, const Budget& budget) {
  Budget limits = tighter(own_, budget);
  const Deadline deadline(limits.time, limits.stop);
  if (limits.unlimited()) limits.work = kDefaultIterations;
  const std::uint64_t count = searches_.size();
  for (std::uint64_t i = 0; i < count; ++i) {
    Search& search = searches_[i];
    if (!reuse_) search.tree.clear();
    search.tree.set_root(position);
    search.random = random(position, i);
    search.deadline = deadline;
    search.most_iterations = limits.work == 0 ? std::numeric_limits<std::uint64_t>::max()
                                              : (limits.work + count - 1 - i) / count;
  }
  if (searches_[0].tree.children().size() == 1) return best_move();
  std::vector<pthread_t> threads;
  threads.reserve(count);
  std::uint64_t first = 1;
  for (; first < count && !searches_[first].tree.proven(); ++first) {
    pthread_t thread;
    if (start_background_thread(thread, "kxo-mcts", 0, run_search, &searches_[first]) != 0) break;
    threads.push_back(thread);
  }
  searches_[0].run();
  // Threads that could not be started: a limit of iterations is still kept.
  for (std::uint64_t i = first; i < count; ++i) searches_[i].run();
  for (const pthread_t thread : threads) ::pthread_join(thread, nullptr);
  for (const Search& search : searches_) count_work(search.iterations);
  return best_move();
}

/// A move that is proven to win, or else the most visited one that is not proven to lose.
int Mcts::best_move() const {
  struct Vote {
    std::uint64_t visits = 0;
    Proof proof = Proof::kOpen;
  };
  std::array<Vote, Rules::kMostCells> votes{};
  for (const Search& search : searches_) {
    for (const SearchTree::Child& child : search.tree.children()) {
      Vote& vote = votes.at(static_cast<std::size_t>(child.cell));
      vote.visits += child.visits + 1;
      if (child.proof != Proof::kOpen) vote.proof = child.proof;
    }
  }
  const auto rank = [](const Vote& vote) {
    const int proven = vote.visits == 0             ? 0  // no candidate
                       : vote.proof == Proof::kLoss ? 1
                       : vote.proof == Proof::kWin  ? 3
                                                    : 2;
    return std::pair(proven, vote.visits);
  };
  const auto best = std::max_element(
      votes.begin(), votes.end(), [&](const Vote& a, const Vote& b) { return rank(a) < rank(b); });
  return static_cast<int>(best - votes.begin());
}

}  // namespace

Result<std::unique_ptr<Agent>, std::string> make_mcts(const Rules& rules, AgentOptions& options) {
  return std::unique_ptr<Agent>(std::make_unique<Mcts>(rules, options));
}

}  // namespace tandem::kxo::detail
