// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include "tandem/kxo/detail/built_in_agents.hpp"
#include "tandem/kxo/detail/deadline.hpp"
#include "tandem/kxo/detail/transposition_table.hpp"

namespace tandem::kxo::detail {
namespace {

constexpr std::uint64_t kDefaultNodes = 100'000;
constexpr int kWin = 20'000;        // less the plies until then
constexpr int kSurelyWon = 19'000;  // at least this, or at most the opposite: the end is known
constexpr int kInfinite = 30'000;

using Bound = TranspositionTable::Bound;

/// Alpha-beta with iterative deepening. Scores are for who moves.
///
/// A move that completes a row, and one that keeps the other player from it, are found on bitboards
/// before any other is tried; an answer to a threat costs no depth.
class Negamax final : public Agent {
 public:
  Negamax(const Rules& rules, AgentOptions& options)
      : Agent(rules),
        deepest_(
            static_cast<int>(options.number("depth", Rules::kMostCells, 1, Rules::kMostCells))),
        table_(static_cast<unsigned>(options.number("table", 16, 4, 30))) {
    own_.work = options.number("nodes", 0, 1, std::uint64_t{1} << 40);
    own_.time = options.time("time", {});
    find_rows();
  }

 private:
  struct Move {
    int rank;
    int cell;
  };

  void do_begin() override { table_.clear(); }
  Result<int> do_choose(const Position& position, const Budget& budget) override;

  int search(const Position& position, int depth, int alpha, int beta, int ply);
  int search_moves(const Position& position, Cells moves, int depth, int alpha, int beta, int ply);
  int sort_moves(const Position& position, Cells moves, int first,
                 std::array<Move, Rules::kMostCells>& order) const noexcept;
  int judge(const Position& position) const noexcept;
  bool can_complete(Cells others) const noexcept {
    return rules().has_row(rules().all() & ~others);
  }
  void find_rows();
  bool out_of_budget() noexcept;

  Budget own_, limits_;
  int deepest_;
  TranspositionTable table_;
  std::vector<Cells> rows_;
  std::array<int, Rules::kMostCells> rows_through_{};
  Deadline deadline_;
  std::uint64_t nodes_ = 0;
  bool stopped_ = false;
  int best_ = 0;  // at the root
};

/// Every row, and how many run through each cell.
void Negamax::find_rows() {
  for (int cell = 0; cell < rules().cells(); ++cell) {
    for (const auto& [down, right] : {std::pair{0, 1}, {1, 0}, {1, 1}, {1, -1}}) {
      const int row = cell / rules().width(), column = cell % rules().width();
      const int last_row = row + down * (rules().goal() - 1);
      const int last_column = column + right * (rules().goal() - 1);
      if (last_row >= rules().height() || last_column >= rules().width() || last_column < 0)
        continue;
      Cells cells = 0;
      for (int i = 0; i < rules().goal(); ++i) {
        const int at = cell + i * (down * rules().width() + right);
        cells |= cell_bit(at);
        ++rows_through_.at(static_cast<std::size_t>(at));
      }
      rows_.push_back(cells);
    }
  }
}

Result<int> Negamax::do_choose(const Position& position, const Budget& budget) {
  limits_ = tighter(own_, budget);
  if (limits_.unlimited() && deepest_ == Rules::kMostCells) limits_.work = kDefaultNodes;
  deadline_ = Deadline(limits_.time, limits_.stop);
  nodes_ = 0;
  stopped_ = false;
  const Cells free = rules().free(position);
  const Player player = position.to_move();
  const Cells wins = rules().completing(position.of(player)) & free;
  const Cells threats = rules().completing(position.of(opponent(player))) & free;
  best_ = std::countr_zero(wins != 0 ? wins : threats != 0 ? threats : free);
  if (wins == 0 && threats == 0) {
    const int left = std::min(deepest_, std::popcount(free));
    for (int depth = 1; depth <= left && !stopped_; ++depth) {
      const int score = search_moves(position, free, depth, -kInfinite, kInfinite, 0);
      if (std::abs(score) >= kSurelyWon) break;
    }
  }
  count_work(nodes_);
  return best_;
}

bool Negamax::out_of_budget() noexcept {
  if (limits_.work != 0 && nodes_ >= limits_.work) stopped_ = true;
  if (nodes_ % 16 == 0 && deadline_.passed()) stopped_ = true;
  return stopped_;
}

/// What `position` is worth, if that is in (alpha, beta), else a bound of it. Anything when the
/// budget is spent.
int Negamax::search(const Position& position, int depth, int alpha, int beta, int ply) {
  ++nodes_;
  if (out_of_budget()) return 0;
  const Cells free = rules().free(position);
  const Player player = position.to_move();
  const Cells mine = position.of(player), theirs = position.of(opponent(player));
  if ((rules().completing(mine) & free) != 0) return kWin - ply - 1;
  const Cells threats = rules().completing(theirs) & free;
  if (threats != 0 && !std::has_single_bit(threats)) return ply + 2 - kWin;
  if ((free & (free - 1)) == 0) return 0;
  if (threats != 0) return search_moves(position, threats, depth, alpha, beta, ply);
  // Who cannot complete a row any more does not win.
  const bool i_can = can_complete(theirs), they_can = can_complete(mine);
  if (!i_can && !they_can) return 0;
  if (!i_can && alpha >= 0) return 0;
  if (!they_can && beta <= 0) return 0;
  if (depth <= 0) return judge(position);
  return search_moves(position, free, depth, alpha, beta, ply);
}

/// `first` first, then moves that threaten, then those with most rows. Returns how many.
int Negamax::sort_moves(const Position& position, Cells moves, int first,
                        std::array<Move, Rules::kMostCells>& order) const noexcept {
  const Cells mine = position.of(position.to_move());
  const Cells free = rules().free(position);
  std::size_t count = 0;
  for (; moves != 0; moves &= moves - 1) {
    const int cell = std::countr_zero(moves);
    const Cells next = rules().completing(mine | cell_bit(cell)) & free & ~cell_bit(cell);
    const int threats = next == 0 ? 0 : std::has_single_bit(next) ? 1 : 2;
    int rank = rows_through_[static_cast<std::size_t>(cell)] + threats * 100;
    if (cell == first) rank = 1000;
    std::size_t at = count++;
    for (; at > 0 && order[at - 1].rank < rank; --at) order[at] = order[at - 1];
    order[at] = {rank, cell};
  }
  return static_cast<int>(count);
}

int Negamax::search_moves(const Position& position, Cells moves, int depth, int alpha, int beta,
                          int ply) {
  const std::uint64_t key = TranspositionTable::key(position);
  const TranspositionTable::Entry known = table_.at(key);
  const bool hit = known.bound != Bound::kNone && known.key == key;
  if (hit && ply > 0) {
    int score = known.score;
    if (score >= kSurelyWon) score -= ply;  // counted from here
    if (score <= -kSurelyWon) score += ply;
    const bool final = std::abs(score) >= kSurelyWon;
    if (known.depth >= depth || final) {
      if (known.bound == Bound::kExact) return score;
      if (known.bound == Bound::kLower && score >= beta) return score;
      if (known.bound == Bound::kUpper && score <= alpha) return score;
    }
  }
  std::array<Move, Rules::kMostCells> order;
  const int count = sort_moves(position, moves, hit ? known.move : -1, order);
  const int lower = alpha;
  int best = -kInfinite, best_cell = std::countr_zero(moves);
  const bool forced = count == 1;
  for (int i = 0; i < count && alpha < beta; ++i) {
    const int cell = order[static_cast<std::size_t>(i)].cell;
    const Position next = position.after(cell);
    const int left = forced ? depth : depth - 1;
    int score = i == 0 ? -search(next, left, -beta, -alpha, ply + 1)
                       : -search(next, left, -alpha - 1, -alpha, ply + 1);
    if (i > 0 && score > alpha && score < beta && !stopped_) {
      score = -search(next, left, -beta, -alpha, ply + 1);
    }
    if (stopped_) return 0;
    if (score > best) {
      best = score;
      best_cell = cell;
      if (ply == 0) best_ = cell;
    }
    alpha = std::max(alpha, score);
  }
  int stored = best;
  if (stored >= kSurelyWon) stored += ply;
  if (stored <= -kSurelyWon) stored -= ply;
  table_.at(key) = {key, static_cast<std::int16_t>(stored),
                    static_cast<std::uint8_t>(std::max(0, depth)),
                    static_cast<std::uint8_t>(best_cell),
                    best >= beta    ? Bound::kLower
                    : best <= lower ? Bound::kUpper
                                    : Bound::kExact};
  return best;
}

/// A guess: what each player has in the rows that the other one has not broken.
int Negamax::judge(const Position& position) const noexcept {
  const Player player = position.to_move();
  const Cells mine = position.of(player), theirs = position.of(opponent(player));
  int sum = 0;
  for (const Cells row : rows_) {
    const Cells of_mine = row & mine, of_theirs = row & theirs;
    if (of_mine != 0 && of_theirs != 0) continue;
    const int stones = std::popcount(of_mine | of_theirs);
    sum += of_theirs == 0 ? stones * stones : -stones * stones;
  }
  return sum;
}

}  // namespace

Result<std::unique_ptr<Agent>, std::string> make_negamax(const Rules& rules,
                                                         AgentOptions& options) {
  return std::unique_ptr<Agent>(std::make_unique<Negamax>(rules, options));
}

}  // namespace tandem::kxo::detail
