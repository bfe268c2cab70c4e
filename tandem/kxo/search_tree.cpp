// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/detail/search_tree.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "tandem/base/check.hpp"
#include "tandem/kxo/playout.hpp"

namespace tandem::kxo::detail {
namespace {

constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

/// sqrt(ln(visits)): a table for most nodes.
float root_of_log(std::uint32_t visits) noexcept {
  static const std::array<float, 4096> kTable = [] {
    std::array<float, 4096> table{};
    for (std::size_t i = 1; i < table.size(); ++i) {
      table[i] = std::sqrt(std::log(static_cast<float>(i)));
    }
    return table;
  }();
  return visits < kTable.size() ? kTable[visits] : std::sqrt(std::log(static_cast<float>(visits)));
}

float value_of(Proof proof) noexcept {
  return proof == Proof::kWin ? 1.0F : proof == Proof::kLoss ? -1.0F : 0.0F;
}

/// What `outcome` is worth to `player`.
float value_of(Outcome outcome, Player player) noexcept {
  if (outcome == Outcome::kDraw) return 0;
  return (outcome == Outcome::kO) == (player == Player::kO) ? 1.0F : -1.0F;
}

}  // namespace

SearchTree::SearchTree(const Rules& rules, float exploration, std::size_t most_nodes)
    : rules_(rules), exploration_(exploration), most_nodes_(most_nodes) {}

void SearchTree::clear() noexcept { nodes_.clear(); }

void SearchTree::set_root(const Position& position) {
  const std::uint32_t found = nodes_.empty() ? kNone : find(position);
  if (found == kNone) {
    nodes_.assign(1, Node{});
  } else if (found != 0) {
    keep_below(found);
  }
  root_ = position;
  if (nodes_[0].children == 0) {
    // Also a position that is decided has a move.
    nodes_[0].proof = Proof::kOpen;
    expand(0, position);
  }
}

/// Where `position` is in the tree, if it follows from the root by at most two moves.
std::uint32_t SearchTree::find(const Position& position) const noexcept {
  Position at = root_;
  std::uint32_t node = 0;
  for (int move = 0; move < 2 && at != position; ++move) {
    const Cells made = position.of(at.to_move()) & ~at.of(at.to_move());
    if (!std::has_single_bit(made) || (at.taken() & made) != 0) return kNone;
    const Node& parent = nodes_[node];
    const int cell = std::countr_zero(made);
    node = kNone;
    for (std::uint32_t i = 0; i < parent.children; ++i) {
      if (nodes_[parent.first_child + i].cell == cell) node = parent.first_child + i;
    }
    if (node == kNone) return kNone;
    at = at.after(cell);
  }
  return at == position ? node : kNone;
}

/// Copies what is below `root`, level by level, and drops the rest.
void SearchTree::keep_below(std::uint32_t root) {
  spare_.clear();
  spare_.push_back(nodes_[root]);
  for (std::size_t i = 0; i < spare_.size(); ++i) {
    const std::uint32_t first = spare_[i].first_child;
    const std::uint32_t count = spare_[i].children;
    spare_[i].first_child = static_cast<std::uint32_t>(spare_.size());
    for (std::uint32_t child = first; child < first + count; ++child) {
      spare_.push_back(nodes_[child]);
    }
  }
  nodes_.swap(spare_);
}

void SearchTree::iterate(Random& random) {
  if (proven()) return;
  std::array<std::uint32_t, Rules::kMostCells + 1> path;
  std::size_t length = 0;
  Position position = root_;
  for (std::uint32_t at = 0;;) {
    path[length++] = at;
    const Node& node = nodes_[at];
    if (node.proof != Proof::kOpen) return back_up({path.data(), length}, value_of(node.proof));
    if (node.children == 0) {
      if (node.visits > 0 && nodes_.size() < most_nodes_) {
        expand(at, position);
        if (nodes_[at].proof != Proof::kOpen) {
          return back_up({path.data(), length}, value_of(nodes_[at].proof));
        }
      } else {
        const Player moved = opponent(position.to_move());
        return back_up({path.data(), length}, value_of(playout(rules_, position, random), moved));
      }
    }
    at = select(nodes_[at]);
    position = position.after(nodes_[at].cell);
  }
}

/// Gives the leaf `at` its children, or its proof when who moves there wins or loses at once.
void SearchTree::expand(std::uint32_t at, const Position& position) {
  const Cells free = rules_.free(position);
  const Player player = position.to_move();
  const Cells wins = rules_.completing(position.of(player)) & free;
  const Cells threats = rules_.completing(position.of(opponent(player))) & free;
  Cells moves = free;
  if (wins != 0) {
    nodes_[at].proof = Proof::kLoss;
    moves = wins;
  } else if (threats != 0) {
    if (!std::has_single_bit(threats)) nodes_[at].proof = Proof::kWin;
    moves = threats;
  }
  const bool fills = std::has_single_bit(free);
  if (nodes_[at].proof == Proof::kOpen && fills) nodes_[at].proof = Proof::kDraw;
  if (nodes_[at].proof != Proof::kOpen && at != 0) return;
  const std::size_t first = nodes_.size();
  for (Cells rest = moves; rest != 0; rest &= rest - 1) {
    Node child;
    child.cell = static_cast<std::uint8_t>(std::countr_zero(rest));
    child.proof = wins != 0 ? Proof::kWin : fills ? Proof::kDraw : Proof::kOpen;
    nodes_.push_back(child);
  }
  // Last: where there was no memory for all of them it stays a leaf.
  nodes_[at].first_child = static_cast<std::uint32_t>(first);
  nodes_[at].children = static_cast<std::uint8_t>(std::popcount(moves));
}

/// The child with the greatest upper confidence bound; one that has not been visited comes first,
/// one that is proven to lose never.
std::uint32_t SearchTree::select(const Node& node) const noexcept {
  const float factor = exploration_ * root_of_log(node.visits);
  float best = -std::numeric_limits<float>::infinity();
  std::uint32_t chosen = node.first_child;
  for (std::uint32_t i = node.first_child; i < node.first_child + node.children; ++i) {
    const Node& child = nodes_[i];
    if (child.proof == Proof::kLoss) continue;
    if (child.visits == 0) return i;
    const float bound = child.mean + factor * child.spread;
    if (bound > best) {
      best = bound;
      chosen = i;
    }
  }
  return chosen;
}

/// Adds `result`, for who moved into the last node of `path`, to all of them.
void SearchTree::back_up(std::span<const std::uint32_t> path, float result) noexcept {
  bool proven = nodes_[path.back()].proof != Proof::kOpen;
  for (std::size_t i = path.size(); i-- > 0;) {
    Node& node = nodes_[path[i]];
    if (proven && node.proof == Proof::kOpen) {
      node.proof = proof_from_children(node);
      proven = node.proof != Proof::kOpen;
      if (proven) result = value_of(node.proof);
    }
    ++node.visits;
    const float share = 1.0F / static_cast<float>(node.visits);
    node.mean += (result - node.mean) * share;
    node.spread = std::sqrt(share);
    result = -result;
  }
}

Proof SearchTree::proof_from_children(const Node& node) const noexcept {
  Proof best = Proof::kLoss;
  for (std::uint32_t i = node.first_child; i < node.first_child + node.children; ++i) {
    const Proof proof = nodes_[i].proof;
    if (proof == Proof::kWin) return Proof::kLoss;
    if (proof == Proof::kOpen || best == Proof::kOpen) {
      best = Proof::kOpen;
    } else {
      best = std::max(best, proof);
    }
  }
  // What is best for who chooses, seen by who moved here.
  return best == Proof::kLoss ? Proof::kWin : best;
}

std::vector<SearchTree::Child> SearchTree::children() const {
  TANDEM_CHECK(!nodes_.empty());
  std::vector<Child> children;
  for (std::uint32_t i = 0; i < nodes_[0].children; ++i) {
    const Node& child = nodes_[nodes_[0].first_child + i];
    children.push_back({child.cell, child.visits, child.mean, child.proof});
  }
  return children;
}

}  // namespace tandem::kxo::detail
