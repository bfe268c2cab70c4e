// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/kxo/detail/user.hpp"

#include <atomic>
#include <climits>
#include <cstring>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/check.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/trace/trace.hpp"

namespace tandem::engine::kxo::detail {

using tandem::kxo::Outcome;
using tandem::kxo::Player;

namespace {

/// When a ring could not be mapped because too many windows are.
constexpr std::chrono::milliseconds kMapAgain{1};

Clock::duration pace_of(const tandem_kxo_setup& wanted) {
  if (wanted.moves_per_second == 0) return {};
  return std::chrono::duration_cast<Clock::duration>(std::chrono::seconds(1)) /
         wanted.moves_per_second;
}

}  // namespace

/// The ring while it is mapped. The client may write what it likes there: a word of its is loaded
/// once, and nothing of ours is read back.
class User::Ring {
 public:
  static Result<Ring, pcie::DmaFault> map(const User& user) {
    const std::uint32_t capacity = user.setup_.wanted.capacity;
    auto window = user.space_.map(pcie::Iova{user.setup_.wanted.ring},
                                  tandem_kxo_ring_size(capacity), pcie::Access::kWrite);
    if (!window) return Unexpected{window.error()};
    return Ring(std::move(*window), capacity);
  }

  /// Ordering: (A) acquires the client's loads of the slots it took.
  std::uint32_t taken() const {
    return word(header().taken).load(std::memory_order_acquire);  // (A)
  }
  /// Says that nothing comes before RESUME, unless more is taken than that by now.
  /// Returns: what is taken.
  std::uint32_t stall() {
    word(header().stalled).store(1, std::memory_order_relaxed);
    full_fence();
    return taken();
  }
  void unstall() { word(header().stalled).store(0, std::memory_order_relaxed); }

  void put(std::uint32_t number, std::uint32_t move) {
    auto* const moves = reinterpret_cast<std::uint32_t*>(window_.bytes().data() + sizeof header());
    word(moves[number & (capacity_ - 1)]).store(move, std::memory_order_relaxed);
  }
  /// Ordering: (B) releases the moves; pairs with the reader's acquire load of `progress`.
  void publish(std::uint32_t published, tandem_kxo_state state) {
    std::atomic_ref(header().progress)
        .store(published | std::uint64_t{state} << 32, std::memory_order_release);  // (B)
    full_fence();
    if (word(header().waiting).load(std::memory_order_relaxed) == 0) return;
    word(header().event).fetch_add(1, std::memory_order_release);
    futex_wake(reinterpret_cast<std::atomic<std::uint32_t>&>(header().event), INT_MAX);
  }

 private:
  Ring(pcie::Window window, std::uint32_t capacity)
      : window_(std::move(window)), capacity_(capacity) {}
  tandem_kxo_ring& header() const {
    return *reinterpret_cast<tandem_kxo_ring*>(window_.bytes().data());
  }
  static std::atomic_ref<std::uint32_t> word(std::uint32_t& of) { return std::atomic_ref(of); }

  pcie::Window window_;
  std::uint32_t capacity_;
};

User::User(Setup setup, const pcie::AddressSpace& space)
    : setup_(std::move(setup)),
      space_(space),
      pace_(pace_of(setup_.wanted)),
      player_o_(setup_.wanted.player_o),
      player_x_(setup_.wanted.player_x) {
  setup_.objects->fetch_add(1, std::memory_order_relaxed);
  kept_.memory_bytes = std::size_t{setup_.wanted.memory_kib} * 1024;
  kept_.tenant = setup_.account;
}

User::~User() { setup_.objects->fetch_sub(1, std::memory_order_relaxed); }

bool User::try_acquire() noexcept {
  std::uint32_t held = references_.load(std::memory_order_relaxed);
  do {
    if (held == 0) return false;
  } while (!references_.compare_exchange_weak(held, held + 1, std::memory_order_relaxed));
  return true;
}

/// Ordering: each drop releases what its holder did to the user, the last one acquires it all.
void User::drop() noexcept {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) retire();
}

tandem_kxo_state User::state() const {
  return player_to_move() == TANDEM_KXO_USER ? TANDEM_KXO_USERS_TURN : TANDEM_KXO_AGENTS_TURN;
}

tandem_status User::start() {
  const MutexLock lock(mutex_);
  auto ring = Ring::map(*this);
  if (!ring) return TANDEM_STATUS_BAD_RANGE;
  ring->publish(0, state());
  return TANDEM_STATUS_OK;
}

void User::trace_move(const tandem::kxo::Position& before, int cell, Outcome outcome) const {
  if (before.taken() == 0) {
    TANDEM_TRACE(game_begun, id(), games_, player_o_ | player_x_ << 8, traced_pasid());
  }
  TANDEM_TRACE(game_move, id(), cell, before.to_move() == Player::kO ? player_o_ : player_x_,
               published_);
  if (outcome != Outcome::kOpen) {
    const int winner = outcome == Outcome::kO ? 1 : outcome == Outcome::kX ? 2 : 0;
    TANDEM_TRACE(game_ended, id(), games_, winner, before.plies() + 1);
  }
}

/// The referee: the move, whether it ends the game, and only then whose turn it is.
std::uint32_t User::move(Ring& ring, int cell) {
  const tandem::kxo::Position before = current();
  const Player player = before.to_move();
  position_ = before.after(cell);
  const Outcome outcome = setup_.rules->outcome(position_);
  over_ = outcome != Outcome::kOpen;
  std::uint32_t flags = player == Player::kX ? TANDEM_KXO_MOVE_X : 0;
  if (over_) flags |= TANDEM_KXO_MOVE_OVER;
  if (outcome == Outcome::kDraw) flags |= TANDEM_KXO_MOVE_DRAW;
  const std::uint32_t word =
      tandem_kxo_make_move(static_cast<std::uint32_t>(cell), flags, published_);
  trace_move(before, cell, outcome);
  if (over_) ++games_;
  if (stalled_) ring.unstall();
  stalled_ = false;
  static const bool lose = planted_fault("kxo-lost-move");
  static const bool repeat = planted_fault("kxo-doubled-move");
  static std::atomic<unsigned> moves{0};
  const bool planted = (lose || repeat) && moves.fetch_add(1, std::memory_order_relaxed) % 8 == 3;
  if (!(planted && lose)) ring.put(published_++, word);
  if (planted && repeat) {
    ring.put(published_, word + (1u << TANDEM_KXO_MOVE_NUMBER_SHIFT));
    ++published_;
  }
  ring.publish(published_, state());
  return word;
}

Result<std::uint32_t, tandem_status> User::write(std::uint32_t cell) {
  const MutexLock lock(mutex_);
  if (ended_) return Unexpected{TANDEM_STATUS_UNKNOWN_ID};
  if (player_to_move() != TANDEM_KXO_USER) return Unexpected{TANDEM_STATUS_WRONG_TURN};
  if (cell >= static_cast<std::uint32_t>(setup_.rules->cells()) ||
      (current().taken() & tandem::kxo::cell_bit(static_cast<int>(cell))) != 0) {
    return Unexpected{TANDEM_STATUS_ILLEGAL_CELL};
  }
  auto ring = Ring::map(*this);
  if (!ring) return Unexpected{TANDEM_STATUS_BAD_RANGE};
  taken_ = ring->taken();
  if (full()) return Unexpected{TANDEM_STATUS_WOULD_BLOCK};
  next_move_ = Clock::now() + pace_;
  return move(*ring, static_cast<int>(cell));
}

tandem_status User::set_players(std::uint8_t o, std::uint8_t x) {
  const MutexLock lock(mutex_);
  if (ended_) return TANDEM_STATUS_UNKNOWN_ID;
  auto ring = Ring::map(*this);
  if (!ring) return TANDEM_STATUS_BAD_RANGE;
  TANDEM_TRACE(permission, id(), o | x << 8, traced_pasid());
  player_o_ = o;
  player_x_ = x;
  ++revision_;
  ring->publish(published_, state());
  return TANDEM_STATUS_OK;
}

tandem_kxo_board User::board() {
  const MutexLock lock(mutex_);
  tandem_kxo_board board{};
  board.o = position_.o;
  board.x = position_.x;
  board.published = published_;
  board.state = ended_ ? TANDEM_KXO_GONE : state();
  board.games = games_;
  board.width = static_cast<std::uint8_t>(setup_.rules->width());
  board.height = static_cast<std::uint8_t>(setup_.rules->height());
  board.goal = static_cast<std::uint8_t>(setup_.rules->goal());
  board.over = over_ ? 1 : 0;
  board.player_o = player_o_;
  board.player_x = player_x_;
  return board;
}

void User::end(bool tell) {
  const MutexLock lock(mutex_);
  if (std::exchange(ended_, true) || !tell) return;
  if (auto ring = Ring::map(*this)) ring->publish(published_, TANDEM_KXO_GONE);
}

User::Step User::thrown_off(const pcie::DmaFault& fault, Clock::time_point& due_at) const {
  // Gone: the client gave its ring back, and asks again if it wants.
  if (fault.reason != pcie::DmaFault::Reason::kNotMappable) return Step::kIdle;
  due_at = Clock::now() + kMapAgain;
  return Step::kLater;
}

/// What there is to think about; nothing, and why in `step`, where there is not.
std::optional<User::Turn> User::next_turn(Step& step, Clock::time_point& due_at) {
  const MutexLock lock(mutex_);
  const std::uint8_t player = player_to_move();
  step = Step::kIdle;
  if (ended_ || player == TANDEM_KXO_USER) return std::nullopt;
  if (pace_ != pace_.zero() && Clock::now() < next_move_) {
    due_at = next_move_;
    step = Step::kLater;
    return std::nullopt;
  }
  if (full()) {  // as far as is known
    auto ring = Ring::map(*this);
    if (!ring) {
      step = thrown_off(ring.error(), due_at);
      return std::nullopt;
    }
    taken_ = ring->taken();
    if (full()) taken_ = ring->stall();
    stalled_ = full();
    if (stalled_) return std::nullopt;
    ring->unstall();
  }
  Turn turn{current(), games_, published_, revision_, player, std::nullopt};
  if (found_ && found_->number == published_ && found_->revision == revision_) {
    turn.cell = found_->cell;
  }
  return turn;
}

std::optional<Result<int>> User::think(const Turn& turn, AgentCache& agents) {
  if (turn.cell) return Result<int>(*turn.cell);
  kept_.follow(turn.revision);
  TANDEM_TRACE(think_begin, id(), turn.player, traced_pasid(), turn.position.plies());
  const auto cell = agents.choose(turn.player, *setup_.rules, turn.position,
                                  {setup_.wanted.seed, turn.game, setup_.wanted.work}, kept_);
  TANDEM_TRACE(think_end, id(), cell && *cell ? **cell : -1);
  return cell;
}

/// The agent thinks on a copy. What it found counts if nothing was said meanwhile: moves come from
/// here alone while it is an agent's turn, so it is enough to look at permissions and the end.
User::Step User::step(AgentCache& agents, Clock::time_point& due_at) {
  Step why = Step::kIdle;
  const auto turn = next_turn(why, due_at);
  if (!turn) return why;
  const auto thought = think(*turn, agents);
  if (!thought) return Step::kUnprepared;
  const Result<int>& cell = *thought;

  const MutexLock lock(mutex_);
  if (ended_) return Step::kIdle;
  if (revision_ != turn->revision) return Step::kMoved;
  auto ring = Ring::map(*this);
  if (!ring) {
    if (cell) found_ = Found{turn->number, turn->revision, *cell};
    return thrown_off(ring.error(), due_at);
  }
  if (!cell) {  // an agent that cannot play leaves its player to the client
    (turn->position.to_move() == Player::kO ? player_o_ : player_x_) = TANDEM_KXO_USER;
    ++revision_;
    ring->publish(published_, state());
    return Step::kIdle;
  }
  if (pace_ != pace_.zero()) next_move_ = Clock::now() + pace_;
  (void)move(*ring, *cell);
  return Step::kMoved;
}

}  // namespace tandem::engine::kxo::detail
