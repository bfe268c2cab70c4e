// SPDX-License-Identifier: Apache-2.0
/// tandem demo kxo: 64 boards of one device, each move of theirs checked by rules of our own.
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <optional>
#include <thread>

#include "apps/broker_process/broker_process.hpp"
#include "apps/tandem/checked_boards.hpp"
#include "apps/tandem/demo.hpp"
#include "apps/tandem/games_device.hpp"
#include "apps/tandem/pairing_costs.hpp"
#include "apps/tandem/pipe.hpp"
#include "apps/tandem/queue.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/kxo/solution.hpp"

namespace tandem::cli {
namespace {

using wd::kxo::Player;
using Clock = std::chrono::steady_clock;

constexpr auto kPatience = CheckedBoards::kPatience;
constexpr unsigned kBoardsEach = 8;
constexpr int kGamesAfterSwitch = 50;

constexpr std::array kPairings = {
    Pairing{Player::kRandom, Player::kRandom},  Pairing{Player::kPerfect, Player::kRandom},
    Pairing{Player::kRandom, Player::kPerfect}, Pairing{Player::kNegamax, Player::kMcts},
    Pairing{Player::kMcts, Player::kNegamax},   Pairing{Player::kTd, Player::kRandom},
    Pairing{Player::kRandom, Player::kQ},       Pairing{Player::kTd, Player::kQ}};
constexpr std::size_t kSwitchedBoard = 2;  // of the first pairing

double seconds_of(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

class Story {
 public:
  std::optional<Failure> run();

 private:
  void step(const std::string& text) {
    fmt::print("{}{}\n", step_ == 0 ? "" : "\n",
               bold(fmt::format("{}. {}", step_ + 1, text), STDOUT_FILENO));
    ++step_;
    std::fflush(stdout);
  }
  static void tell(const std::string& text) {
    fmt::print("   {}\n", text);
    std::fflush(stdout);
  }
  std::optional<Failure> open();
  std::optional<Failure> measure();
  std::optional<Failure> switch_agent();
  std::optional<Failure> stop_amid_a_game(std::size_t board);
  std::optional<Failure> follow_perfect(CheckedBoard& board, Score& after, int& moves);
  std::optional<Failure> kill_client();
  std::optional<Failure> await_return_of_queues(std::uint32_t before);

  static Result<std::uint32_t, Failure> queues_used();
  std::optional<double> device_cpu_seconds();

  int step_ = 0;
  std::unique_ptr<broker::BrokerProcess> broker_;
  std::optional<wd::kxo::Device> device_;
  std::optional<CheckedBoards> boards_;
};

std::optional<double> Story::device_cpu_seconds() {
  if (broker_ != nullptr) {
    clockid_t clock{};
    if (::clock_getcpuclockid(broker_->pid(), &clock) != 0) return std::nullopt;
    return seconds_of(clock);
  }
  switch (device_->queue().path()) {
    case wd::Path::kEmbedded:
      return seconds_of(CLOCK_PROCESS_CPUTIME_ID) - seconds_of(CLOCK_THREAD_CPUTIME_ID);
    case wd::Path::kInline:
      return seconds_of(CLOCK_THREAD_CPUTIME_ID);
    default:
      return std::nullopt;  // somebody else's broker
  }
}

std::optional<Failure> Story::open() {
  const char* const mode = std::getenv("TANDEM");
  if (mode == nullptr || *mode == '\0' || std::string_view(mode) == "auto") {
    auto broker =
        broker::BrokerProcess::start({.engines = std::max(1, usable_cpus() / 2), .events = true});
    if (!broker) return Failure{kFailure, "private broker: " + broker.error()};
    broker_ = std::move(*broker);
  }
  auto device = open_games_device();
  if (!device) return device.error();
  device_.emplace(std::move(*device));
  boards_.emplace(*device_);
  step(fmt::format("{} boards on the device \"kxo\", {}", kPairings.size() * kBoardsEach,
                   broker_ != nullptr ? fmt::format("in a private broker, pid {}", broker_->pid())
                                      : fmt::format("path {}", path_name(static_cast<std::uint32_t>(
                                                                   device_->queue().path())))));
  return std::nullopt;
}

std::optional<Failure> Story::measure() {
  PairingCosts costs(*boards_, kPairings, [this] { return device_cpu_seconds(); });
  if (auto failure = costs.measure_each(kBoardsEach)) return failure;
  if (auto failure = costs.measure_together()) return failure;
  costs.print();
  return std::nullopt;
}

/// Leaves the board between two moves of a game, with some stones on it.
std::optional<Failure> Story::stop_amid_a_game(std::size_t board) {
  const CheckedBoard& its = (*boards_)[board];
  const auto patience = Clock::now() + kPatience;
  for (;;) {
    if (auto failure = boards_->hold(board, board + 1)) return failure;
    if (its.referee.stones() >= 2 && its.referee.stones() <= 6) return std::nullopt;
    if (Clock::now() > patience) return Failure{kFailure, "no game could be stopped in its midst"};
    if (auto failure = boards_->set_players(board, its.pairing)) return failure;
    if (const auto taken = boards_->take(board, board + 1); !taken) return taken.error();
  }
}

/// Every move of O has to be a perfect one from now on.
std::optional<Failure> Story::follow_perfect(CheckedBoard& board, Score& after, int& moves) {
  const auto solution = kxo::Solution::shared(kxo::Rules::standard());
  if (!solution) return Failure{kFailure, "the game was not solved"};
  const auto patience = Clock::now() + kPatience;
  while (after.games() < kGamesAfterSwitch) {
    kxo::Position position;
    for (std::size_t cell = 0; cell < board.referee.squares().size(); ++cell) {
      const char stone = board.referee.squares()[cell];
      if (stone == 'O') position.o |= kxo::cell_bit(static_cast<int>(cell));
      if (stone == 'X') position.x |= kxo::cell_bit(static_cast<int>(cell));
    }
    const auto move = board.board.wait(patience);
    if (!move) return Failure{kFailure, fmt::format("after a switch: {}", move.error().hint)};
    if (const std::string wrong = board.referee.check(*move); !wrong.empty()) {
      return Failure{kFailure, "after a switch: " + wrong};
    }
    if (!move->x) {
      ++moves;
      if (((*solution)->best(position) & kxo::cell_bit(move->cell)) == 0) {
        return Failure{kFailure, fmt::format("move {}: O was to play perfectly, cell {} is not",
                                             move->number, move->cell)};
      }
    }
    after.count(*move);
  }
  return std::nullopt;
}

std::optional<Failure> Story::switch_agent() {
  if (auto failure = stop_amid_a_game(kSwitchedBoard)) return failure;
  step("An agent is switched in the midst of a game");
  CheckedBoard& board = (*boards_)[kSwitchedBoard];
  const Score& before = board.score;
  tell(fmt::format("board {}, {}: O won {:.0f} % of {} games; {} stones into the next,",
                   kSwitchedBoard + 1, title_of(board.pairing),
                   100.0 * static_cast<double>(before.o_wins) /
                       static_cast<double>(std::max<std::uint64_t>(before.games(), 1)),
                   human_count(before.games()), board.referee.stones()));
  if (auto failure = boards_->set_players(kSwitchedBoard, {Player::kPerfect, Player::kRandom})) {
    return failure;
  }
  Score after;
  int moves = 0;
  if (auto failure = follow_perfect(board, after, moves)) return failure;
  // The game in which the switch came may have been lost already.
  if (after.o_wins + 1 < after.games()) {
    return Failure{kFailure, fmt::format("perfect play as O won only {} of {} games", after.o_wins,
                                         after.games())};
  }
  tell(fmt::format("O becomes perfect: its next {} moves are the best and win {} of {} games",
                   moves, after.o_wins, after.games()));
  return std::nullopt;
}

Result<std::uint32_t, Failure> Story::queues_used() {
  std::array<wd_device, 16> devices;
  const int count = wd_list_devices(WD_PATH_AUTO, devices.data(), devices.size());
  if (count < 0) return Unexpected{from_wd("listing devices", count)};
  for (int i = 0; i < std::min<int>(count, devices.size()); ++i) {
    const wd_device& device = devices[static_cast<std::size_t>(i)];
    if (std::string_view(device.name) == "kxo") return device.queues_used;
  }
  return Unexpected{Failure{kFailure, "the device kxo is not listed"}};
}

std::optional<Failure> Story::await_return_of_queues(std::uint32_t before) {
  const auto patience = Clock::now() + kPatience;
  for (;;) {
    const auto now = queues_used();
    if (!now) return now.error();
    if (*now < before) return std::nullopt;
    if (Clock::now() > patience) {
      return Failure{kFailure, "the queue of a killed client was not put within five minutes"};
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

std::optional<Failure> Story::kill_client() {
  step("A client with 64 boards of its own is killed");
  if (device_->queue().path() != wd::Path::kBroker) {
    tell("left out: the device is in this process, there is no other client to kill");
    return std::nullopt;
  }
  auto pipe = Pipe::make();
  if (!pipe) return pipe.error();
  const pid_t child = ::fork();
  if (child < 0) return from_errno("fork", errno);
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    auto device = wd::kxo::Device::open();
    if (!device) ::_exit(kFailure);
    std::vector<wd::kxo::Board> boards;
    for (std::uint64_t i = 0; i < 64; ++i) {
      auto board = device->add({.o = Player::kRandom, .x = Player::kRandom, .seed = i});
      if (!board || !board->wait()) ::_exit(kFailure);
      boards.push_back(std::move(*board));
    }
    if (::write(pipe->write_end.get(), "r", 1) != 1) ::_exit(kFailure);
    for (;;) {
      for (auto& board : boards) {
        if (!board.wait()) ::_exit(kFailure);
      }
    }
  }
  pipe->write_end.reset();
  char byte = 0;
  const bool ready = read_exactly(pipe->read_end.get(), &byte, 1, kPatience);
  const auto before = queues_used();
  const auto killed_at = Clock::now();
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  if (!ready) return Failure{kFailure, "the client that was to be killed did not come up"};
  if (!before) return before.error();
  if (auto failure = await_return_of_queues(*before)) return failure;
  if (broker_ != nullptr) {
    const auto* ended = broker_->wait_for("ended", child, kPatience);
    if (ended == nullptr || ended->queues != 1 || ended->reserved_bytes == 0) {
      return Failure{kFailure, "the broker did not say what it took back from a killed client"};
    }
    tell(fmt::format("process {}, PASID {}: its queue, 64 boards and {} of rings", child,
                     ended->pasid, human_bytes(static_cast<double>(ended->reserved_bytes))));
    tell(fmt::format("were taken back {} after SIGKILL", human_time(ended->seen - killed_at)));
  } else {
    tell(fmt::format("process {}: its queue with 64 boards was put", child));
  }
  // Nobody else notices.
  const std::uint64_t moves = boards_->moves_checked();
  const auto patience = Clock::now() + kPatience;
  while (boards_->moves_checked() < moves + 1000) {
    if (const auto taken = boards_->take(0, boards_->size()); !taken) return taken.error();
    if (Clock::now() > patience) return Failure{kFailure, "our boards stopped with that client"};
  }
  tell(fmt::format("our {} boards play on", boards_->size()));
  return std::nullopt;
}

std::optional<Failure> Story::run() {
  if (auto failure = open()) return failure;
  if (auto failure = measure()) return failure;
  if (auto failure = switch_agent()) return failure;
  if (auto failure = kill_client()) return failure;
  fmt::print("\n{} moves, each checked by rules written a second time: all right\n",
             boards_->moves_checked());
  return std::nullopt;
}

}  // namespace

int demo_kxo() {
  std::optional<Failure> failure;
  {
    Story story;
    failure = story.run();
  }
  return failure ? report({failure->code, "demo kxo: " + failure->text}) : kOk;
}

}  // namespace tandem::cli
