// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/detail/search_tree.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <limits>
#include <new>
#include <thread>

#include "tandem/base/check.hpp"
#include "tandem/kxo/playout.hpp"

namespace tandem::kxo::detail {
namespace {

/// One or two threads plan one iteration each, and one more for so many that a node has seen. With
/// 16, with 64 and with single ones the same number of iterations plays as well (7x7-5, 2,000:
/// +1 +- 19 Elo). More threads plan less each: all plans together stay a sixteenth of the visits,
/// or else a node would know of hardly anything but losses that nobody has suffered yet.
constexpr std::uint32_t kVisitsPerPlanned = 32;
std::uint32_t visits_per_planned(unsigned threads) noexcept {
  return std::max(kVisitsPerPlanned, threads * (kVisitsPerPlanned / 2));
}

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

int value_of(Proof proof) noexcept {
  return proof == Proof::kWin ? 1 : proof == Proof::kLoss ? -1 : 0;
}

/// What `outcome` is worth to `player`.
int value_of(Outcome outcome, Player player) noexcept {
  if (outcome == Outcome::kDraw) return 0;
  return (outcome == Outcome::kO) == (player == Player::kO) ? 1 : -1;
}

/// Where who moves in a position may move, and what that proves of the position.
struct Moves {
  Cells cells = 0;
  Proof position = Proof::kOpen;  // for who moved there
  Proof each = Proof::kOpen;      // of the moves
};

Moves moves_in(const Rules& rules, const Position& position) noexcept {
  const Cells free = rules.free(position);
  const Player player = position.to_move();
  const bool fills = std::has_single_bit(free);
  const Cells wins = rules.completing(position.of(player)) & free;
  if (wins != 0) return {wins, Proof::kLoss, Proof::kWin};
  const Cells threats = rules.completing(position.of(opponent(player))) & free;
  const Proof filled = fills ? Proof::kDraw : Proof::kOpen;
  if (threats == 0) return {free, filled, filled};
  return {threats, std::has_single_bit(threats) ? filled : Proof::kWin, filled};
}

/// The first child with the greatest bound so far.
struct Best {
  float bound = -std::numeric_limits<float>::infinity();
  unsigned child = 0;

  void offer(float other, unsigned its) noexcept {
    child = other > bound ? its : child;
    bound = std::max(bound, other);
  }
};

/// What is proven of a node: `proof`, unless another thread was faster, with the same.
///
/// Ordering: (B) seq_cst, as proof_from_children() loads what is proven. Each of two threads that
///           prove two children of a node looks at all of them afterwards; whose change comes last
///           in the single order of these operations sees both. So no proof is missed.
template <bool kShared>
void prove(Node node, Proof proof) noexcept {
  Link link = node.link->load(std::memory_order_relaxed);
  while (link.open()) {
    const Link proven = link.with(proof);
    if (!kShared) return node.link->store(proven, std::memory_order_relaxed);
    if (node.link->compare_exchange_weak(link, proven, std::memory_order_seq_cst)) return;  // (B)
  }
}

}  // namespace

SearchTree::SearchTree(const Rules& rules, float exploration, std::size_t most_nodes,
                       unsigned threads)
    : rules_(rules),
      exploration_(exploration),
      store_(most_nodes, threads, static_cast<std::size_t>(rules.cells())),
      seats_(threads),
      shared_(threads > 1),
      visits_per_planned_(visits_per_planned(threads)) {}

void SearchTree::clear() noexcept {
  has_root_ = false;
  store_.clear();
  for (Seat& seat : seats_) {
    seat.depth = 0;
    seat.cursor = {};
  }
}

void SearchTree::set_root(const Position& position) {
  for (Seat& seat : seats_) seat.depth = 0;
  const std::optional<Node> known = has_root_ ? find(position) : std::nullopt;
  if (!known) {
    clear();
    root_statistics_.copy(Statistics());
    root_link_.store({}, std::memory_order_relaxed);
    has_root_ = true;
  } else if (known->link != &root_link_) {
    root_statistics_.copy(*known->statistics);
    root_link_.store(known->link->load(std::memory_order_relaxed), std::memory_order_relaxed);
    if (store_.crowded()) make_room();
  }
  root_position_ = position;
  const Link link = root_link_.load(std::memory_order_relaxed);
  if (link.children() != 0) return;
  Level level;
  level.node = root();
  level.link = link.with(Proof::kOpen);  // also a position that is decided has a move
  level.position = position;
  if (expand<false>(level, seats_[0]).children() == 0) throw std::bad_alloc();
}

/// Where `position` is in the tree, if it follows from the root by at most two moves.
std::optional<Node> SearchTree::find(const Position& position) noexcept {
  Position at = root_position_;
  Node node = root();
  for (int move = 0; move < 2 && at != position; ++move) {
    const Cells made = position.of(at.to_move()) & ~at.of(at.to_move());
    if (!std::has_single_bit(made) || (at.taken() & made) != 0) return std::nullopt;
    const Link parent = node.link->load(std::memory_order_relaxed);
    const Block block = children_at(parent);
    const int cell = std::countr_zero(made);
    unsigned i = 0;
    while (i < parent.children() && block.links[i].load(std::memory_order_relaxed).cell() != cell)
      ++i;
    if (i == parent.children()) return std::nullopt;
    node = block.node(i);
    at = at.after(cell);
  }
  if (at != position) return std::nullopt;
  return node;
}

/// Copies what is below the root, and drops the rest.
void SearchTree::make_room() {
  store_.begin_copy();
  for (Seat& seat : seats_) seat.cursor = {};
  const Link link = copied(root_link_.load(std::memory_order_relaxed), seats_[0].cursor);
  root_link_.store(link, std::memory_order_relaxed);
  store_.end_copy();
}

/// As deep as the game has moves left.
Link SearchTree::copied(Link from, NodeStore::Cursor& cursor) noexcept {
  if (from.children() == 0) return from;
  const auto name = store_.allocate(cursor, from.children());
  if (!name) return from.with_children(0, 0);  // known anew when somebody comes by
  const Link to = from.with_children(*name, from.children());
  const Block old = children_at(from), made = children_at(to);
  for (unsigned i = 0; i < from.children(); ++i) {
    const Link below = copied(old.links[i].load(std::memory_order_relaxed), cursor);
    made.make(i, below).statistics->copy(old.statistics[i]);
  }
  return to;
}

void SearchTree::iterate(Random& random, unsigned thread) {
  if (shared_) {
    iterate_as<true>(random, seats_[thread]);
  } else {
    iterate_as<false>(random, seats_[thread]);
  }
}

void SearchTree::leave(unsigned thread) noexcept {
  Seat& seat = seats_[thread];
  while (seat.depth > 0) shared_ ? leave<true>(seat) : leave<false>(seat);
}

template <bool kShared>
void SearchTree::iterate_as(Random& random, Seat& seat) {
  // Up, to where there is still something to do.
  for (; seat.depth > 0; leave<kShared>(seat)) {
    Level& level = seat.levels[seat.depth - 1];
    if (kShared) level.link = level.node.link->load(std::memory_order_acquire);  // (A)
    if (level.link.open() && level.done < level.planned) break;
  }
  if (seat.depth == 0) {
    if (proven()) return;
    enter<kShared>(root(), root_link_.load(std::memory_order_acquire), root_position_,
                   seat);  // (A)
  }
  // And down.
  for (;;) {
    Level& level = seat.levels[seat.depth - 1];
    const std::uint32_t visits = level.visits + level.done;
    if (level.link.children() == 0 && level.link.open() && visits > 0) {
      level.link = expand<kShared>(level, seat);
    }
    if (!level.link.open()) {
      return back_up<kShared>(seat, value_of(level.link.proof()), true);
    }
    if (level.link.children() == 0) {
      const Player moved = opponent(level.position.to_move());
      const Outcome outcome = playout(rules_, level.position, random);
      return back_up<kShared>(seat, value_of(outcome, moved), false);
    }
    const Block block = children_at(level.link);
    const Node child = block.node(select(block, level.link.children(), visits));
    const Link link = child.link->load(std::memory_order_acquire);  // (A)
    enter<kShared>(child, link, level.position.after(link.cell()), seat);
  }
}

/// Plans iterations for a node: a small share of those that it has seen, so that who chooses is
/// hardly wrong in not choosing anew each time, and threads seldom take the same cache lines from
/// each other.
template <bool kShared>
void SearchTree::enter(Node node, Link link, const Position& position, Seat& seat) noexcept {
  const std::uint32_t visits = node.statistics->counts().visits;
  std::uint32_t planned = 1 + visits / visits_per_planned_;
  if (seat.depth > 0) {
    const Level& above = seat.levels[seat.depth - 1];
    planned = std::min(planned, above.planned - above.done);
  }
  Level& level = seat.levels[seat.depth++];
  level.node = node;
  level.link = link;
  level.position = position;
  level.visits = visits;
  level.planned = planned;
  level.done = 0;
  level.sum = 0;
  if (kShared) {
    const std::int64_t losses = planned;
    level.visits = node.statistics->add<true>(losses, -losses).visits - planned;
  }
}

/// Tells the results.
template <bool kShared>
void SearchTree::leave(Seat& seat) noexcept {
  const Level& level = seat.levels[--seat.depth];
  const std::int64_t done = level.done, sum = level.sum, losses = kShared ? level.planned : 0;
  level.node.statistics->add<kShared>(done - losses, sum + losses);
  // What another thread is proving just now, that thread rules out.
  if (level.link.proof() == Proof::kLoss) level.node.statistics->rule_out();
}

/// Gives the leaf its children, or its proof when who moves there wins or loses at once; the root
/// gets both. Returns: its link, as it is now.
///
/// Ordering: (A) releases the children; who acquires the link sees them finished.
template <bool kShared>
Link SearchTree::expand(const Level& leaf, Seat& seat) noexcept {
  const Moves moves = moves_in(rules_, leaf.position);
  Link link = leaf.link;
  const Link judged = link.with(moves.position);
  if (moves.position != Proof::kOpen && leaf.node.link != &root_link_) {
    prove<kShared>(leaf.node, moves.position);
    return judged;
  }
  const auto children = static_cast<unsigned>(std::popcount(moves.cells));
  const auto name = store_.allocate(seat.cursor, children);
  if (!name) return link;
  const Link grown = judged.with_children(*name, children);
  static const bool early = planted_fault("kxo-early-children");
  if (kShared && early) {
    leaf.node.link->store(grown, std::memory_order_release);
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  const Block block = children_at(grown);
  unsigned i = 0;
  for (Cells rest = moves.cells; rest != 0; rest &= rest - 1) {
    block.make(i++, Link(static_cast<unsigned>(std::countr_zero(rest)), moves.each));
  }
  if (!kShared) {
    leaf.node.link->store(grown, std::memory_order_relaxed);
  } else if (!leaf.node.link->compare_exchange_strong(link, grown, std::memory_order_release,
                                                      std::memory_order_acquire)) {  // (A)
    NodeStore::undo(seat.cursor, children);
    return link;
  }
  return grown;
}

/// The child with the greatest upper confidence bound: one that has not been visited comes first,
/// one that is proven to lose never.
///
/// Half of an iteration's time is spent here. So which one is greater is no branch, which nobody
/// could predict, and there are two chains of comparisons, none of which waits for the other.
unsigned SearchTree::select(Block block, unsigned children, std::uint32_t visits) const noexcept {
  const float factor = exploration_ * root_of_log(visits);
  Best even, odd;
  unsigned i = 0;
  for (; i + 1 < children; i += 2) {
    const float a = block.statistics[i].bound(factor);
    const float b = block.statistics[i + 1].bound(factor);
    if (std::max(a, b) > std::numeric_limits<float>::max()) return a >= b ? i : i + 1;
    even.offer(a, i);
    odd.offer(b, i + 1);
  }
  if (i < children) even.offer(block.statistics[i].bound(factor), i);
  const bool odd_wins =
      odd.bound > even.bound || (odd.bound == even.bound && odd.child < even.child);
  return odd_wins ? odd.child : even.child;
}

/// Counts `result`, for who moved into the last level's node, for all levels. `proven`: that node
/// is, and so perhaps others.
template <bool kShared>
void SearchTree::back_up(Seat& seat, int result, bool proven) noexcept {
  for (std::size_t i = seat.depth; i-- > 0;) {
    Level& level = seat.levels[i];
    if (proven) {
      Link& link = level.link;
      link = level.node.link->load(std::memory_order_acquire);  // (A)
      if (link.open()) {
        link = link.with(proof_from_children(link));
        if (!link.open()) prove<kShared>(level.node, link.proof());
      }
      proven = !link.open();
      if (proven) result = value_of(link.proof());
    }
    ++level.done;
    level.sum += result;
    result = -result;
  }
}

/// Ordering: (B), see prove().
Proof SearchTree::proof_from_children(const Link& link) const noexcept {
  const Block block = children_at(link);
  Proof best = Proof::kLoss;
  for (unsigned i = 0; i < link.children(); ++i) {
    const Proof proof = block.links[i].load(std::memory_order_seq_cst).proof();  // (B)
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

std::vector<SearchTree::Child> SearchTree::children_of(const std::atomic<Link>& at) const {
  const Link parent = at.load(std::memory_order_acquire);  // (A)
  const Block block = children_at(parent);
  std::vector<Child> children;
  for (unsigned i = 0; i < parent.children(); ++i) {
    const Link link = block.links[i].load(std::memory_order_relaxed);
    const auto [visits, sum] = block.statistics[i].counts();
    const float mean = visits == 0 ? 0 : static_cast<float>(sum) / static_cast<float>(visits);
    children.push_back({link.cell(), visits, mean, link.proof()});
  }
  return children;
}

void SearchTree::for_each(const std::function<void(const Seen&)>& visit) const {
  for_each_below(root_position_, root_statistics_, root_link_, visit);
}

void SearchTree::for_each_below(const Position& position, const Statistics& statistics,
                                const std::atomic<Link>& at,
                                const std::function<void(const Seen&)>& visit) const {
  const Link link = at.load(std::memory_order_acquire);
  visit({position, statistics.counts(), link.proof(), children_of(at)});
  const Block block = children_at(link);
  for (unsigned i = 0; i < link.children(); ++i) {
    const Link child = block.links[i].load(std::memory_order_acquire);
    for_each_below(position.after(child.cell()), block.statistics[i], block.links[i], visit);
  }
}

}  // namespace tandem::kxo::detail
