// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tandem/kxo/random.hpp"
#include "tandem/kxo/rules.hpp"

namespace tandem::kxo::detail {

/// What a move is worth to who made it. `kOpen`: nothing is proven yet.
enum class Proof : std::uint8_t { kOpen, kLoss, kDraw, kWin };

/// A tree of positions that random playouts from its leaves judge: UCT, with proven results backed
/// up beside the averages. A move that wins or has to be answered at once is never a matter of
/// playouts: a node with one has no other children.
///
/// Results are numbers for who moved *into* a node, 1 for a win and -1 for a loss, so that who
/// chooses among children looks for the greatest. Single precision suffices: a node's average
/// moves by less than the noise of its playouts after some 2^20 of them.
/// Source: L. Kocsis, C. Szepesvari, "Bandit based Monte-Carlo Planning", 2006; M. Winands,
///         Y. Bjoernsson, J. Saito, "Monte-Carlo Tree Search Solver", 2008.
/// Thread safety: one thread at a time.
class SearchTree {
 public:
  /// `exploration`: the factor c of UCT. `most_nodes`: leaves stay leaves when there are so many.
  SearchTree(const Rules& rules, float exploration, std::size_t most_nodes);

  struct Child {
    int cell = 0;
    std::uint32_t visits = 0;
    float mean = 0;
    Proof proof = Proof::kOpen;
  };

  /// Makes `position`, of an open game, the root. When it follows from the last root by at most two
  /// moves, what is known of it is kept.
  void set_root(const Position& position);
  void clear() noexcept;
  /// One iteration. Does nothing when the root is proven.
  void iterate(Random& random);

  bool proven() const noexcept { return nodes_[0].proof != Proof::kOpen; }
  std::vector<Child> children() const;
  std::size_t size() const noexcept { return nodes_.size(); }

 private:
  struct Node {
    float mean = 0;
    float spread = 0;  // 1 / sqrt(visits)
    std::uint32_t visits = 0;
    std::uint32_t first_child = 0;
    std::uint8_t children = 0;  // 0: a leaf
    std::uint8_t cell = 0;
    Proof proof = Proof::kOpen;
  };

  void expand(std::uint32_t at, const Position& position);
  std::uint32_t select(const Node& node) const noexcept;
  void back_up(std::span<const std::uint32_t> path, float result) noexcept;
  Proof proof_from_children(const Node& node) const noexcept;
  std::uint32_t find(const Position& position) const noexcept;
  void keep_below(std::uint32_t root);

  Rules rules_;
  float exploration_;
  std::size_t most_nodes_;
  Position root_;
  std::vector<Node> nodes_;  // the root first; empty before set_root()
  std::vector<Node> spare_;
};

}  // namespace tandem::kxo::detail
