// SPDX-License-Identifier: Apache-2.0
/// Games on the device "kxo": boards that play by themselves, against you, or both.
///
///     auto device = tandem::wd::kxo::Device::open().value();
///     auto board = device.add({.o = Player::kRandom, .x = Player::kUser}).value();
///     while (auto move = board.wait()) …       // O's moves, and yours when they were made
///     board.play(5);                           // when wait() says Code::kWrongTurn
///
/// A board's moves lie in a ring in reserved memory: those that are there are read without a system
/// call. Nothing is lost: a board whose ring is full waits until half of it is taken. Games follow
/// one another on a board. Header-only over wd.hpp; nothing throws but std::bad_alloc.
///
/// Threads: a Device and its boards belong to one thread at a time.
/// Fork: boards are the parent's; in a child their calls say Code::kDeviceLost. The child opens a
/// Device of its own.
#pragma once

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/abi/kxo.h"
#include "tandem/base/cpu.hpp"
#include "tandem/wd/wd.hpp"

namespace tandem::wd::kxo {

/// Who moves for a player.
enum class Player : std::uint8_t {
  kUser = TANDEM_KXO_USER,
  kMcts = TANDEM_KXO_MCTS,
  kNegamax = TANDEM_KXO_NEGAMAX,
  kTd = TANDEM_KXO_TD,
  kRandom = TANDEM_KXO_RANDOM,
  kPerfect = TANDEM_KXO_PERFECT,
  kQ = TANDEM_KXO_Q,
};

struct Move {
  std::uint32_t number = 0;  ///< over all games of the board, from 0
  int cell = 0;              ///< row * width + column
  bool x = false;            ///< X's; else O's
  bool over = false;         ///< it ends the game: its player won, unless it is a
  bool draw = false;
};

struct Setup {
  Player o = Player::kUser, x = Player::kUser;
  std::uint8_t width = 4, height = 4, goal = 3;
  std::uint16_t moves_per_second = 0;  ///< of agents; 0: as fast as they can
  std::uint32_t work = 0;              ///< nodes or iterations for a move; 0: the agent's default
  std::uint64_t seed = 0;
  std::uint32_t memory_kib = 0;  ///< that its agents may keep from move to move of a game
  std::uint32_t capacity = 64;   ///< moves that wait to be read, a power of two
};

namespace detail {

/// One operation of the device, as wd::Queue runs it.
struct Operate {
  static constexpr const char* kAlgorithm = "game";
  wd_request what{};
  std::optional<wd_request> request() const { return what; }
};

inline wd_request operation(std::uint16_t opcode, std::uint64_t id, std::uint32_t param = 0) {
  wd_request request{};
  request.opcode = opcode;
  request.operand = id;
  request.param = param;
  return request;
}

/// A queue, and reserved memory for rings.
class Core {
 public:
  static Result<std::shared_ptr<Core>, Error> open(const Options& options) {
    auto queue = Queue::open("game", options);
    if (!queue) return Unexpected{queue.error()};
    void* const page =
        ::mmap(nullptr, kMarkBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return Unexpected{Error::from_errno(-errno)};
    std::shared_ptr<Core> core(new Core(std::move(*queue), page));
    if (::madvise(page, kMarkBytes, MADV_WIPEONFORK) != 0) {
      return Unexpected{Error::from_errno(-errno)};
    }
    core->mark_->store(1, std::memory_order_relaxed);
    return core;
  }
  ~Core() { ::munmap(mark_, kMarkBytes); }
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  Queue queue;
  /// Whether this process opened it, not one that it was forked from.
  bool ours() const { return mark_->load(std::memory_order_relaxed) != 0; }

  /// Whether looking again and again can pay: what is looked for comes from another CPU.
  bool may_spin() const { return may_spin_; }

  /// Starts an operation that nobody waits for. Errors: those of starting it.
  Result<void, Error> start(const wd_request& what) {
    auto& place = started_[started_count_++ % kMostStarted];
    place.reset();  // waits, if it is not done by now
    place.emplace(queue.submit(Operate{what}));
    if (!place->ready()) return {};
    if (auto done = place->get(); !done) return Unexpected{done.error()};
    return {};
  }

  Result<tandem_kxo_ring*, Error> take_ring(std::uint32_t capacity) {
    const std::size_t bytes = ring_bytes(capacity);
    for (std::size_t i = 0; i < free_.size(); ++i) {
      if (free_[i].bytes != bytes) continue;
      void* const at = free_[i].at;
      free_[i] = free_.back();
      free_.pop_back();
      return cleared(at);
    }
    if (slabs_.empty() || slabs_.back().bytes().size() - used_ < bytes) {
      auto slab = queue.reserve(std::max(bytes, kSlabBytes));
      if (!slab) return Unexpected{slab.error()};
      slabs_.push_back(std::move(*slab));
      used_ = 0;
    }
    void* const at = slabs_.back().bytes().data() + used_;
    used_ += bytes;
    return cleared(at);
  }
  void give_ring(tandem_kxo_ring* ring, std::uint32_t capacity) {
    free_.push_back({ring, ring_bytes(capacity)});
  }

 private:
  struct Free {
    void* at;
    std::size_t bytes;
  };
  static constexpr std::size_t kMarkBytes = 4096;
  static constexpr std::size_t kSlabBytes = std::size_t{1} << 20;
  static constexpr std::size_t kMostStarted = 16;

  Core(Queue opened, void* page)
      : queue(std::move(opened)),
        mark_(new (page) std::atomic<std::uint32_t>(0)),
        may_spin_(queue.path() != Path::kInline && std::thread::hardware_concurrency() > 1) {}
  static std::size_t ring_bytes(std::uint32_t capacity) {
    return (tandem_kxo_ring_size(capacity) + 63) & ~std::uint64_t{63};
  }
  static tandem_kxo_ring* cleared(void* at) { return new (at) tandem_kxo_ring{}; }

  std::atomic<std::uint32_t>* mark_;  // a forked child reads 0
  const bool may_spin_;
  std::array<std::optional<Op>, kMostStarted> started_;
  std::size_t started_count_ = 0;
  std::vector<Reserved> slabs_;
  std::size_t used_ = 0;  // of the last slab
  std::vector<Free> free_;
};

}  // namespace detail

/// A user of the device: one board after another. Released by the destructor.
class Board {
 public:
  Board(Board&& other) noexcept
      : core_(std::move(other.core_)),
        id_(other.id_),
        ring_(other.ring_),
        capacity_(other.capacity_),
        taken_(other.taken_),
        looked_(other.looked_),
        usual_wait_(other.usual_wait_) {}
  Board& operator=(Board&& other) noexcept {
    std::swap(core_, other.core_);
    std::swap(id_, other.id_);
    std::swap(ring_, other.ring_);
    std::swap(capacity_, other.capacity_);
    std::swap(taken_, other.taken_);
    std::swap(looked_, other.looked_);
    std::swap(usual_wait_, other.usual_wait_);
    return *this;
  }
  ~Board() { release(); }

  std::uint64_t id() const { return id_; }

  /// The next move, without waiting; no system call where engines run by themselves.
  ///
  /// Errors: kBusy none is there yet; kWrongTurn all are read and the client has to move;
  /// kUnknownId
  ///         it was released; kDeviceLost.
  Result<Move, Error> read() {
    if (!usable()) return Unexpected{lost()};
    auto move = take();
    if (move || move.error().code != Code::kBusy || core_->queue.path() != Path::kInline) {
      return move;
    }
    if (auto due = resume(); !due) return Unexpected{due.error()};
    return take();
  }

  /// The next move; sleeps until there is one. Errors: as read(); kDeadline.
  Result<Move, Error> wait(std::chrono::steady_clock::time_point deadline =
                               std::chrono::steady_clock::time_point::max()) {
    for (bool spun = !core_ || !core_->may_spin();;) {
      auto move = read();
      if (move || move.error().code != Code::kBusy) return move;
      if (!std::exchange(spun, true) && spin()) continue;
      const auto left = deadline - std::chrono::steady_clock::now();
      if (left <= left.zero()) {
        return Unexpected{Error{Code::kDeadline, 0, 0, "no move in time; wait again"}};
      }
      if (auto slept = sleep(std::min<std::chrono::nanoseconds>(left, kLongestSleep)); !slept) {
        return Unexpected{slept.error()};
      }
    }
  }

  /// Moves for a player who is kUser. The move comes out of read(), too.
  /// Errors: kWrongTurn, kIllegalCell, kBusy (the ring is full), kUnknownId, kDeviceLost.
  Result<void, Error> play(int cell) {
    return run(WD_OP_KXO_WRITE, static_cast<std::uint32_t>(cell));
  }

  /// Takes effect with the next move. Errors: kUnsupported, kUnknownId, kDeviceLost.
  Result<void, Error> set_players(Player o, Player x) {
    return run(WD_OP_KXO_SET_PERMISSION,
               static_cast<std::uint32_t>(o) | static_cast<std::uint32_t>(x) << 8);
  }

  /// The board now. Moves that read() has not given yet are on it already.
  Result<tandem_kxo_board, Error> board() {
    if (!usable()) return Unexpected{lost()};
    tandem_kxo_board board{};
    wd_request request = detail::operation(WD_OP_KXO_BOARD, id_);
    request.dst = &board;
    request.dst_len = sizeof board;
    auto done = core_->queue.run(detail::Operate{request});
    if (!done) return Unexpected{done.error()};
    return board;
  }
  /// The same, and read() goes on behind it: for who fell behind and wants no history.
  Result<tandem_kxo_board, Error> skip_to_now() {
    auto now = board();
    if (now) {
      taken_ = now->published;
      (void)offer();
    }
    return now;
  }

  /// What the destructor does.
  void release() {
    if (core_ == nullptr) return;
    const auto core = std::move(core_);
    if (!core->ours()) return;
    const auto done =
        core->queue.run(detail::Operate{detail::operation(WD_OP_KXO_RELEASE_ID, id_)});
    // Who says so knows that nothing reaches the ring any more.
    if (done || done.error().code == Code::kUnknownId) core->give_ring(ring_, capacity_);
  }

 private:
  friend class Device;
  static constexpr std::chrono::nanoseconds kLongestSleep = std::chrono::seconds(1);
  static constexpr std::chrono::nanoseconds kMostSpin = std::chrono::microseconds(100);
  // When moves usually take longer than that, a short look is all that is tried.
  static constexpr std::chrono::nanoseconds kHopelessSpin = std::chrono::microseconds(2);
  static constexpr int kLooksPerClockRead = 32;

  Board(std::shared_ptr<detail::Core> core, std::uint64_t id, tandem_kxo_ring* ring,
        std::uint32_t capacity)
      : core_(std::move(core)), id_(id), ring_(ring), capacity_(capacity) {}

  static Error lost() {
    return Error{Code::kDeviceLost, 0, 0,
                 "the board was released, or it is the parent's of a fork: open another one"};
  }
  bool usable() const { return core_ != nullptr && core_->ours(); }
  static std::atomic_ref<std::uint32_t> word(std::uint32_t& of) { return std::atomic_ref(of); }

  /// Ordering: (A) acquires the moves; pairs with the device's release store of `progress`.
  Result<Move, Error> take() {
    const std::uint64_t progress =
        std::atomic_ref(ring_->progress).load(std::memory_order_acquire);  // (A)
    if (static_cast<std::uint32_t>(progress) == taken_) {
      if (!looked_) {
        if (auto told = offer(); !told) return Unexpected{told.error()};
      }
      switch (progress >> 32) {
        case TANDEM_KXO_AGENTS_TURN:
          return Unexpected{Error{Code::kBusy, 0, 0, "no move is there yet; wait()"}};
        case TANDEM_KXO_USERS_TURN:
          return Unexpected{Error{Code::kWrongTurn, 0, 0, "it is your turn: play()"}};
        default:
          return Unexpected{Error{Code::kUnknownId, 0, 0, "the board was released"}};
      }
    }
    auto* const moves = reinterpret_cast<std::uint32_t*>(ring_ + 1);
    const std::uint32_t got = word(moves[taken_ & (capacity_ - 1)]).load(std::memory_order_relaxed);
    if (((got >> TANDEM_KXO_MOVE_NUMBER_SHIFT) ^ taken_) << TANDEM_KXO_MOVE_NUMBER_SHIFT != 0) {
      return Unexpected{Error{Code::kCorrupt, 0, 0, "moves are missing; skip_to_now()"}};
    }
    const Move move{taken_, static_cast<int>(tandem_kxo_move_cell(got)),
                    (got & TANDEM_KXO_MOVE_X) != 0, (got & TANDEM_KXO_MOVE_OVER) != 0,
                    (got & TANDEM_KXO_MOVE_DRAW) != 0};
    if (auto went = advance(taken_ + 1); !went) return Unexpected{went.error()};
    return move;
  }
  /// Gives the slots before `number` back. Whether the board waits for them is looked at when half
  /// of the ring is free and when it is empty: a RESUME then pays for many moves.
  Result<void, Error> advance(std::uint32_t number) {
    taken_ = number;
    if ((number & (capacity_ / 2 - 1)) == 0) return offer();
    looked_ = false;
    word(ring_->taken).store(number, std::memory_order_release);  // (B)
    return {};
  }
  /// Gives slots back, and has a board that waits for them go on.
  ///
  /// Ordering: (B) releases our loads of the slots. Between it and the load of `stalled` stands a
  ///           full fence: a read-modify-write that is sequentially consistent, as the load is.
  Result<void, Error> offer() {
    looked_ = true;
    (void)word(ring_->taken).exchange(taken_, std::memory_order_seq_cst);  // (B)
    if (word(ring_->stalled).load(std::memory_order_seq_cst) == 0) return {};
    if (core_->queue.path() != Path::kInline) {
      return core_->start(detail::operation(WD_OP_KXO_RESUME, id_));
    }
    auto due = resume();
    if (!due) return Unexpected{due.error()};
    return {};
  }

  Result<void, Error> run(std::uint16_t opcode, std::uint32_t param) {
    if (!usable()) return Unexpected{lost()};
    auto done = core_->queue.run(detail::Operate{detail::operation(opcode, id_, param)});
    if (!done) return Unexpected{done.error()};
    return {};
  }
  Result<std::chrono::nanoseconds, Error> resume() {
    auto done = core_->queue.run(detail::Operate{detail::operation(WD_OP_KXO_RESUME, id_)});
    if (!done) return Unexpected{done.error()};
    return std::chrono::nanoseconds(done->result);
  }

  bool nothing_new() const {
    return std::atomic_ref(ring_->progress).load(std::memory_order_seq_cst) ==
           (taken_ | std::uint64_t{TANDEM_KXO_AGENTS_TURN} << 32);
  }

  /// Looks at the ring for as long as that usually pays. Returns: whether there is something.
  bool spin() {
    const auto budget = usual_wait_ > kMostSpin ? kHopelessSpin : kMostSpin;
    const auto start = std::chrono::steady_clock::now();
    for (auto now = start; now - start < budget; now = std::chrono::steady_clock::now()) {
      for (int look = 0; look < kLooksPerClockRead; ++look) {
        if (!nothing_new()) {
          learn(now - start);
          return true;
        }
        cpu_pause();
      }
    }
    return false;
  }
  void learn(std::chrono::nanoseconds wait) { usual_wait_ += (wait - usual_wait_) / 8; }

  /// Ordering: as in Ring: `waiting` is stored before the last look at `progress`.
  Result<void, Error> sleep(std::chrono::nanoseconds longest) {
    if (core_->queue.path() == Path::kInline) {
      auto due = resume();
      if (!due) return Unexpected{due.error()};
      longest = std::min(longest, *due);
      const timespec time = as_timespec(longest);
      if (longest.count() > 0) (void)::nanosleep(&time, nullptr);
      return {};
    }
    const auto start = std::chrono::steady_clock::now();
    const timespec time = as_timespec(longest);
    const std::uint32_t seen = word(ring_->event).load(std::memory_order_acquire);
    (void)word(ring_->waiting).exchange(1, std::memory_order_seq_cst);
    const bool timed_out =
        nothing_new() &&
        ::syscall(SYS_futex, &ring_->event, FUTEX_WAIT, seen, &time, nullptr, 0) != 0 &&
        errno == ETIMEDOUT;
    word(ring_->waiting).store(0, std::memory_order_relaxed);
    learn(std::min<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start,
                                             4 * kMostSpin));
    if (!timed_out) return {};
    // A broker that died wakes nobody: ask now and then.
    auto alive = core_->queue.run(Nop{});
    if (!alive) return Unexpected{alive.error()};
    return {};
  }
  static timespec as_timespec(std::chrono::nanoseconds span) {
    return {static_cast<time_t>(span.count() / 1'000'000'000),
            static_cast<long>(span.count() % 1'000'000'000)};
  }

  std::shared_ptr<detail::Core> core_;
  std::uint64_t id_;
  tandem_kxo_ring* ring_;
  std::uint32_t capacity_;
  std::uint32_t taken_ = 0;
  bool looked_ = true;  // whether the board waits for room, since `taken` was stored
  std::chrono::nanoseconds usual_wait_{0};
};

/// A queue on the device: its boards are seen and changed through it alone.
class Device {
 public:
  /// Errors: those of Queue::open().
  static Result<Device, Error> open(const Options& options = {}) {
    auto core = detail::Core::open(options);
    if (!core) return Unexpected{core.error()};
    return Device(std::move(*core));
  }

  /// Errors: kUnsupported no such agent; kInvalid no such game; kNoMemory a quota.
  Result<Board, Error> add(const Setup& setup) {
    if (!core_->ours()) return Unexpected{Board::lost()};
    if (!std::has_single_bit(setup.capacity) || setup.capacity > TANDEM_KXO_MAX_CAPACITY) {
      return Unexpected{Error::from_errno(-EINVAL)};
    }
    auto ring = core_->take_ring(setup.capacity);
    if (!ring) return Unexpected{ring.error()};
    tandem_kxo_setup wanted{};
    wanted.ring = reinterpret_cast<std::uint64_t>(*ring);
    wanted.capacity = setup.capacity;
    wanted.width = setup.width;
    wanted.height = setup.height;
    wanted.goal = setup.goal;
    wanted.player_o = static_cast<std::uint8_t>(setup.o);
    wanted.player_x = static_cast<std::uint8_t>(setup.x);
    wanted.moves_per_second = setup.moves_per_second;
    wanted.work = setup.work;
    wanted.seed = setup.seed;
    wanted.memory_kib = setup.memory_kib;
    wd_request request = detail::operation(WD_OP_KXO_GET_ID, 0);
    request.src = &wanted;
    request.src_len = sizeof wanted;
    auto done = core_->queue.run(detail::Operate{request});
    if (!done) {
      if (done.error().code != Code::kDeviceLost) core_->give_ring(*ring, setup.capacity);
      return Unexpected{done.error()};
    }
    return Board(core_, done->result, *ring, setup.capacity);
  }

  Queue& queue() { return core_->queue; }

 private:
  explicit Device(std::shared_ptr<detail::Core> core) : core_(std::move(core)) {}
  std::shared_ptr<detail::Core> core_;
};

}  // namespace tandem::wd::kxo
