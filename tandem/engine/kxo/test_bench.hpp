// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/abi/kxo.h"
#include "tandem/engine/kxo/detail/engine.hpp"
#include "tandem/engine/test_space.hpp"

/// For tests of the game device: clients that speak its operations, and agents that do as told.
namespace tandem::engine::kxo {

/// A place where agents wait until somebody lets them on.
class Gate {
 public:
  void pass() {
    std::unique_lock lock(mutex_);
    ++inside_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
    --inside_;
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void await(int inside) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return inside_ >= inside; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int inside_ = 0;
  bool open_ = false;
};

constexpr std::uint8_t kFirstFree = TANDEM_KXO_RANDOM;  ///< takes the first free cell
constexpr std::uint8_t kAtTheGate = TANDEM_KXO_MCTS;    ///< likewise, behind the gate
constexpr std::uint8_t kLastFree = TANDEM_KXO_NEGAMAX;  ///< takes the last free cell
constexpr std::uint8_t kBroken = TANDEM_KXO_TD;         ///< a cell that is none, or an error
constexpr std::uint8_t kSlow = TANDEM_KXO_Q;            ///< the first free cell, after 2 ms of work

class TestAgents final : public AgentSource {
 public:
  bool knows(std::uint8_t player) const override {
    return player != TANDEM_KXO_USER && player != TANDEM_KXO_PERFECT && player < TANDEM_KXO_PLAYERS;
  }
  std::unique_ptr<Agent> make(std::uint8_t player, const tandem::kxo::Rules& rules,
                              std::size_t) const override {
    return std::make_unique<TestAgent>(rules, player, *this);
  }

  mutable Gate gate;
  mutable std::atomic<std::uint64_t> asked{0};

 private:
  class TestAgent final : public Agent {
   public:
    TestAgent(const tandem::kxo::Rules& rules, std::uint8_t player, const TestAgents& all)
        : rules_(rules), player_(player), all_(all) {}

    Result<int> choose(const tandem::kxo::Position& position, const Game&) override {
      all_.asked.fetch_add(1);
      const tandem::kxo::Cells free = rules_.free(position);
      if (player_ == kBroken) return position.plies() % 2 == 0 ? Result<int>(64) : errno_error(EIO);
      if (player_ == kAtTheGate) all_.gate.pass();
      if (player_ == kLastFree) return 63 - std::countl_zero(free);
      if (player_ == kSlow) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(2);
        while (std::chrono::steady_clock::now() < end) {
        }
      }
      return std::countr_zero(free);
    }

   private:
    const tandem::kxo::Rules rules_;
    const std::uint8_t player_;
    const TestAgents& all_;
  };
};

/// A device before a memory where every address is host RAM, as reserved memory is.
class TestDevice {
 public:
  explicit TestDevice(Options options = {}) {
    if (options.agents == nullptr) options.agents = agents;
    engine.emplace("kxo", std::move(options));
  }
  ~TestDevice() { agents->gate.open(); }

  detail::Device& device() { return engine->device(); }

  TestSpace space;
  std::shared_ptr<TestAgents> agents = std::make_shared<TestAgents>();
  std::optional<detail::KxoEngine> engine;
};

/// A queue on it. Thread safety: one thread at a time; rings may be read by others.
class TestClient {
 public:
  explicit TestClient(TestDevice& device, std::uint32_t tenant = 1, std::size_t first_ring = 0)
      : device_(device),
        worker_(device.engine->make_worker()),
        session_(device.engine->make_session_for(tenant)),
        next_ring_(kRings + first_ring * kRingBytes) {}

  static constexpr std::size_t kRings = 1 << 20, kRingBytes = 1024;
  static constexpr std::uint32_t kCapacity = 128;

  uacce::Session& session() { return *session_; }
  void close() { session_.reset(); }

  uacce::Completion run(const tandem_descriptor& descriptor) {
    return worker_->execute(descriptor, device_.space.space(), session_.get());
  }
  uacce::Completion run(std::uint16_t opcode, std::uint64_t operand, std::uint32_t param = 0) {
    tandem_descriptor descriptor{};
    descriptor.opcode = opcode;
    descriptor.operand = operand;
    descriptor.param = param;
    return run(descriptor);
  }

  /// A setup with a fresh ring.
  tandem_kxo_setup setup(std::uint8_t o, std::uint8_t x) {
    tandem_kxo_setup wanted{};
    wanted.ring = TestSpace::kRam + next_ring_;
    wanted.capacity = kCapacity;
    wanted.player_o = o;
    wanted.player_x = x;
    next_ring_ += kRingBytes;
    return wanted;
  }
  uacce::Completion get_id(const tandem_kxo_setup& wanted) {
    const std::uint64_t offset = wanted.ring - TestSpace::kRam;
    if (wanted.ring % 64 == 0 && offset <= TestSpace::kRamBytes - kRingBytes) {
      new (&ring(wanted)) tandem_kxo_ring{};
    }
    const std::uint64_t at = 4096 + session_slot_ * 64;
    std::memcpy(device_.space.ram().data() + at, &wanted, sizeof wanted);
    tandem_descriptor descriptor{};
    descriptor.opcode = TANDEM_OP_KXO_GET_ID;
    descriptor.src = TestSpace::kRam + at;
    descriptor.src_len = sizeof wanted;
    return run(descriptor);
  }
  std::uint64_t add(const tandem_kxo_setup& wanted) {
    const uacce::Completion completion = get_id(wanted);
    EXPECT_EQ(completion.status, TANDEM_STATUS_OK);
    return completion.result;
  }
  tandem_status set_players(std::uint64_t id, std::uint32_t o, std::uint32_t x) {
    return run(TANDEM_OP_KXO_SET_PERMISSION, id, o | x << 8).status;
  }
  tandem_status write(std::uint64_t id, std::uint32_t cell) {
    return run(TANDEM_OP_KXO_WRITE, id, cell).status;
  }
  tandem_status release(std::uint64_t id) { return run(TANDEM_OP_KXO_RELEASE_ID, id).status; }
  tandem_kxo_board board(std::uint64_t id) {
    const std::uint64_t at = (1 << 16) + session_slot_ * 64;
    tandem_descriptor descriptor{};
    descriptor.opcode = TANDEM_OP_KXO_BOARD;
    descriptor.operand = id;
    descriptor.dst = TestSpace::kRam + at;
    descriptor.dst_len = sizeof(tandem_kxo_board);
    EXPECT_EQ(run(descriptor).status, TANDEM_STATUS_OK);
    tandem_kxo_board board;
    std::memcpy(&board, device_.space.ram().data() + at, sizeof board);
    return board;
  }

  tandem_kxo_ring& ring(const tandem_kxo_setup& wanted) {
    return *reinterpret_cast<tandem_kxo_ring*>(device_.space.ram().data() +
                                               (wanted.ring - TestSpace::kRam));
  }
  std::uint32_t published(const tandem_kxo_setup& wanted) {
    return static_cast<std::uint32_t>(progress(wanted));
  }
  std::uint32_t state(const tandem_kxo_setup& wanted) {
    return static_cast<std::uint32_t>(progress(wanted) >> 32);
  }
  std::uint64_t progress(const tandem_kxo_setup& wanted) {
    return std::atomic_ref(ring(wanted).progress).load(std::memory_order_acquire);
  }
  std::uint32_t move(const tandem_kxo_setup& wanted, std::uint32_t number) {
    auto* const moves = reinterpret_cast<std::uint32_t*>(&ring(wanted) + 1);
    return std::atomic_ref(moves[number & (wanted.capacity - 1)]).load(std::memory_order_relaxed);
  }
  /// Gives slots back as a client does. Returns: whether the board waited for that.
  bool take(const tandem_kxo_setup& wanted, std::uint32_t until) {
    (void)std::atomic_ref(ring(wanted).taken).exchange(until, std::memory_order_seq_cst);
    return std::atomic_ref(ring(wanted).stalled).load(std::memory_order_seq_cst) != 0;
  }

 private:
  TestDevice& device_;
  std::unique_ptr<uacce::Worker> worker_;
  std::unique_ptr<uacce::Session> session_;
  static inline std::atomic<std::uint64_t> slots_{0};
  const std::uint64_t session_slot_ = slots_.fetch_add(1) % 512;
  std::size_t next_ring_;
};

/// Waits for what another thread is about to do.
inline void await(const std::function<bool()>& condition) {
  while (!condition()) std::this_thread::yield();
}

/// Follows a board's moves and checks each against rules of its own.
class Referee {
 public:
  explicit Referee(int width = 4, int height = 4, int goal = 3)
      : width_(width),
        height_(height),
        goal_(goal),
        cells_(static_cast<std::size_t>(width * height)) {}

  /// Errors: what is wrong with move `number`, or nothing.
  testing::AssertionResult check(std::uint32_t number, std::uint32_t move) {
    if (move >> TANDEM_KXO_MOVE_NUMBER_SHIFT != (number & 0x3FFFFF)) {
      return testing::AssertionFailure() << "number " << number << " is not in " << move;
    }
    const auto cell = static_cast<std::size_t>(tandem_kxo_move_cell(move));
    const char who = (move & TANDEM_KXO_MOVE_X) != 0 ? 'x' : 'o';
    if (cell >= cells_.size() || cells_[cell] != 0) {
      return testing::AssertionFailure() << "move " << number << ": cell " << cell;
    }
    if (who != (stones_ % 2 == 0 ? 'o' : 'x')) {
      return testing::AssertionFailure() << "move " << number << " is not " << who << "'s";
    }
    cells_[cell] = who;
    ++stones_;
    const bool won = row_through(static_cast<int>(cell), who);
    const bool draw = !won && stones_ == cells_.size();
    if (((move & TANDEM_KXO_MOVE_OVER) != 0) != (won || draw) ||
        ((move & TANDEM_KXO_MOVE_DRAW) != 0) != draw) {
      return testing::AssertionFailure() << "move " << number << ": the end of the game";
    }
    if (won || draw) {
      std::fill(cells_.begin(), cells_.end(), '\0');
      stones_ = 0;
    }
    return testing::AssertionSuccess();
  }

 private:
  char at(int row, int column) const {
    if (row < 0 || row >= height_ || column < 0 || column >= width_) return '\0';
    return cells_[static_cast<std::size_t>(row * width_ + column)];
  }
  bool row_through(int cell, char who) const {
    const int row = cell / width_, column = cell % width_;
    for (const auto& [down, right] : {std::pair{0, 1}, {1, 0}, {1, 1}, {1, -1}}) {
      int length = 1;
      for (int i = 1; at(row + i * down, column + i * right) == who; ++i) ++length;
      for (int i = 1; at(row - i * down, column - i * right) == who; ++i) ++length;
      if (length >= goal_) return true;
    }
    return false;
  }

  int width_, height_, goal_;
  std::vector<char> cells_;
  std::size_t stones_ = 0;
};

}  // namespace tandem::engine::kxo
