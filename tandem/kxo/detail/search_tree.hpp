// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "tandem/base/cpu.hpp"
#include "tandem/kxo/detail/node_store.hpp"
#include "tandem/kxo/detail/search_node.hpp"
#include "tandem/kxo/random.hpp"
#include "tandem/kxo/rules.hpp"

namespace tandem::kxo::detail {

/// A tree of positions that random playouts from its leaves judge: UCT, with proven results backed
/// up beside the averages. A move that wins or has to be answered at once is never a matter of
/// playouts: a node with one has no other children.
///
/// Results are numbers for who moved *into* a node, 1 for a win and -1 for a loss, so that who
/// chooses among children looks for the greatest.
///
/// Several threads may search it at once. None waits for another, and one that is stopped amid an
/// iteration holds nobody up:
///
///   * results are added to counts atomically;
///   * whoever is first to give a leaf its children publishes them, finished, with its link; who
///     comes second throws its own away;
///   * a thread that enters a node counts losses for the iterations that it plans there, and takes
///     them back with the results: others go elsewhere meanwhile;
///   * what is proven stays proven, and is the same whoever proves it.
///
/// Source: L. Kocsis, C. Szepesvari, "Bandit based Monte-Carlo Planning", 2006; M. Winands,
///         Y. Bjoernsson, J. Saito, "Monte-Carlo Tree Search Solver", 2008; G. Chaslot, M. Winands,
///         J. van den Herik, "Parallel Monte-Carlo Tree Search", 2008 (virtual loss).
/// Thread safety: iterate() on as many threads as were announced, with a number each; proven() and
///                children() meanwhile. The rest while nobody does anything else.
class SearchTree {
 public:
  /// `exploration`: the factor c of UCT. `most_nodes`: leaves stay leaves when there are so many;
  /// as much memory again is used to make room. `threads`: that iterate.
  SearchTree(const Rules& rules, float exploration, std::size_t most_nodes, unsigned threads = 1);

  struct Child {
    int cell = 0;
    std::uint32_t visits = 0;
    float mean = 0;
    Proof proof = Proof::kOpen;
  };
  /// A node, as tests look at it.
  struct Seen {
    Position position;
    Statistics::Counts counts;
    Proof proof = Proof::kOpen;
    std::vector<Child> children;
  };

  /// Makes `position`, of an open game, the root. When it follows from the last root by at most two
  /// moves, what is known of it is kept.
  void set_root(const Position& position);
  void clear() noexcept;
  /// One iteration, of thread number `thread`, which stays in the tree. Does nothing when the root
  /// is proven.
  void iterate(Random& random, unsigned thread = 0);
  /// The thread leaves the tree: now all have its results. Those of one that has not left are lost
  /// when the root changes.
  void leave(unsigned thread = 0) noexcept;

  bool proven() const noexcept { return !root_link_.load(std::memory_order_relaxed).open(); }
  /// Iterations that the root's node knows of.
  std::uint32_t visits() const noexcept { return root_statistics_.counts().visits; }
  std::vector<Child> children() const { return children_of(root_link_); }
  /// The root, then what is below it.
  void for_each(const std::function<void(const Seen&)>& visit) const;

 private:
  /// A node that a thread is in or below, and what it keeps to itself about it.
  struct Level {
    Node node;
    Link link;  // as it was when the thread was here last
    Position position;
    std::uint32_t visits;       // that the node had before
    std::uint32_t planned = 0;  // iterations; others see them as losses until this one leaves
    std::uint32_t done = 0;
    std::int32_t sum = 0;  // of their results
  };
  /// A thread's own.
  struct alignas(kCacheLine) Seat {
    NodeStore::Cursor cursor;
    std::size_t depth = 0;  // of levels; 0: the thread is not in the tree
    std::array<Level, Rules::kMostCells + 1> levels;
  };

  Node root() noexcept { return {&root_statistics_, &root_link_}; }
  Block children_at(const Link& link) const noexcept {
    return store_.block(link.first(), link.children());
  }
  std::vector<Child> children_of(const std::atomic<Link>& at) const;
  void for_each_below(const Position& position, const Statistics& statistics,
                      const std::atomic<Link>& at,
                      const std::function<void(const Seen&)>& visit) const;

  std::optional<Node> find(const Position& position) noexcept;
  void make_room();
  Link copied(Link from, NodeStore::Cursor& cursor) noexcept;

  template <bool kShared>
  void iterate_as(Random& random, Seat& seat);
  template <bool kShared>
  void enter(Node node, Link link, const Position& position, Seat& seat) noexcept;
  template <bool kShared>
  void leave(Seat& seat) noexcept;
  template <bool kShared>
  Link expand(const Level& leaf, Seat& seat) noexcept;
  template <bool kShared>
  void back_up(Seat& seat, int result, bool proven) noexcept;
  unsigned select(Block block, unsigned children, std::uint32_t visits) const noexcept;
  Proof proof_from_children(const Link& link) const noexcept;

  const Rules rules_;
  const float exploration_;
  NodeStore store_;
  std::vector<Seat> seats_;
  const bool shared_;
  const std::uint32_t visits_per_planned_;
  Position root_position_;
  bool has_root_ = false;
  // On lines of their own: each iteration changes the statistics, and asks whether it is proven.
  alignas(kCacheLine) Statistics root_statistics_;
  alignas(kCacheLine) std::atomic<Link> root_link_;
};

}  // namespace tandem::kxo::detail
