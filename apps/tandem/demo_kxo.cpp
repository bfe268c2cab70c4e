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
#include "apps/tandem/demo.hpp"
#include "apps/tandem/games_device.hpp"
#include "apps/tandem/pipe.hpp"
#include "apps/tandem/queue.hpp"
#include "apps/tandem/referee.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/kxo/solution.hpp"

namespace tandem::cli {
namespace {

using wd::Code;
using wd::kxo::Player;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::chrono::seconds kPatience{60};
constexpr milliseconds kAlone{120};      // each pairing, to be measured
constexpr milliseconds kTogether{1200};  // all of them
constexpr unsigned kBoardsEach = 8;
constexpr int kGamesAfterSwitch = 50;
constexpr int kMostAtOnce = 256;  // more than a ring holds

struct Pairing {
  Player o, x;
};
constexpr std::array kPairings = {
    Pairing{Player::kRandom, Player::kRandom},  Pairing{Player::kPerfect, Player::kRandom},
    Pairing{Player::kRandom, Player::kPerfect}, Pairing{Player::kNegamax, Player::kMcts},
    Pairing{Player::kMcts, Player::kNegamax},   Pairing{Player::kTd, Player::kRandom},
    Pairing{Player::kRandom, Player::kQ},       Pairing{Player::kTd, Player::kQ}};
constexpr std::size_t kRandomPairing = 0;
constexpr std::uint32_t kWork = 1000;  // nodes or iterations of a move

struct Score {
  std::uint64_t o_wins = 0, x_wins = 0, draws = 0;
  std::uint64_t games() const { return o_wins + x_wins + draws; }
};

/// A board of the device and what the referee saw of it.
struct GameBoard {
  std::size_t pairing;
  wd::kxo::Board board;
  Referee referee;
  Score score;
};

/// What a pairing costs, measured while nobody else plays.
struct Cost {
  double seconds = 0, moves = 0;
  std::optional<double> cpu_seconds;
};

std::string title_of(const Pairing& pairing) {
  return fmt::format("{} - {}", name_of(pairing.o), name_of(pairing.x));
}

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
  std::optional<Failure> measure_each();
  std::optional<Failure> measure(std::size_t pairing);
  std::optional<Failure> all_together();
  std::optional<Failure> switch_agent();
  std::optional<Failure> stop_amid_a_game(GameBoard& table);
  std::optional<Failure> follow_perfect(GameBoard& table, Score& after, int& moves);
  std::optional<Failure> kill_client();
  std::optional<Failure> await_return_of_queues(std::uint32_t before);
  void print_results() const;

  Result<int, Failure> take(GameBoard& table);
  Result<int, Failure> take_all(std::size_t from, std::size_t to);
  std::optional<Failure> set_players(GameBoard& table, Player o, Player x);
  std::optional<Failure> hold(std::size_t from, std::size_t to);
  static Result<std::uint32_t, Failure> queues_used();
  std::optional<double> device_cpu_seconds();
  std::uint64_t moves_checked() const;

  int step_ = 0;
  std::unique_ptr<broker::BrokerProcess> broker_;
  std::optional<wd::kxo::Device> device_;
  std::vector<GameBoard> tables_;
  std::array<Cost, kPairings.size()> costs_;
  double together_seconds_ = 0;
  std::uint64_t together_moves_ = 0;
  std::optional<double> together_cpu_;
};

/// The next moves of a board, as far as they are there; not for ever where agents move whenever we
/// look. Returns: how many.
Result<int, Failure> Story::take(GameBoard& table) {
  for (int taken = 0;; ++taken) {
    if (taken == kMostAtOnce) return taken;
    const auto move = table.board.read();
    if (!move) {
      if (move.error().code == Code::kBusy || move.error().code == Code::kWrongTurn) return taken;
      return Unexpected{Failure{kFailure, fmt::format("reading a move: {}", move.error().hint)}};
    }
    if (const std::string wrong = table.referee.check(*move); !wrong.empty()) {
      return Unexpected{
          Failure{kFailure, fmt::format("board {} ({}): {}", 1 + (&table - tables_.data()),
                                        title_of(kPairings[table.pairing]), wrong)}};
    }
    if (!move->over) continue;
    ++(move->draw ? table.score.draws : move->x ? table.score.x_wins : table.score.o_wins);
  }
}

/// The same for a range of boards; lets the device have the CPU when it has nothing for us.
Result<int, Failure> Story::take_all(std::size_t from, std::size_t to) {
  int taken = 0;
  for (std::size_t i = from; i < to; ++i) {
    const auto some = take(tables_[i]);
    if (!some) return Unexpected{some.error()};
    taken += *some;
  }
  if (taken == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
  return taken;
}

std::optional<Failure> Story::set_players(GameBoard& table, Player o, Player x) {
  if (const auto set = table.board.set_players(o, x); !set) {
    return Failure{kFailure, fmt::format("setting who plays: {}", set.error().hint)};
  }
  return std::nullopt;
}

/// Stops boards where they are and takes what they have published.
std::optional<Failure> Story::hold(std::size_t from, std::size_t to) {
  for (std::size_t i = from; i < to; ++i) {
    if (auto failure = set_players(tables_[i], Player::kUser, Player::kUser)) return failure;
  }
  const auto taken = take_all(from, to);
  return taken ? std::nullopt : std::optional(taken.error());
}

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

std::uint64_t Story::moves_checked() const {
  std::uint64_t moves = 0;
  for (const GameBoard& table : tables_) moves += table.referee.moves();
  return moves;
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
  step(fmt::format("{} boards on the device \"kxo\", {}", kPairings.size() * kBoardsEach,
                   broker_ != nullptr ? fmt::format("in a private broker, pid {}", broker_->pid())
                                      : fmt::format("path {}", path_name(static_cast<std::uint32_t>(
                                                                   device_->queue().path())))));
  return std::nullopt;
}

std::optional<Failure> Story::measure(std::size_t pairing) {
  const std::size_t first = tables_.size();
  for (unsigned i = 0; i < kBoardsEach; ++i) {
    auto board = device_->add({.o = kPairings[pairing].o,
                               .x = kPairings[pairing].x,
                               .work = kWork,
                               .seed = tables_.size()});
    if (!board) return Failure{kFailure, fmt::format("adding a board: {}", board.error().hint)};
    tables_.push_back({pairing, std::move(*board), Referee(4, 4, 3), {}});
  }
  // Some agents learn, or solve the game, before their first move.
  const auto patience = Clock::now() + kPatience;
  const auto has_moved = [](const GameBoard& table) { return table.referee.moves() > 1; };
  const auto from = tables_.begin() + static_cast<std::ptrdiff_t>(first);
  while (!std::all_of(from, tables_.end(), has_moved)) {
    if (const auto taken = take_all(first, tables_.size()); !taken) return taken.error();
    if (Clock::now() > patience) {
      return Failure{kFailure, title_of(kPairings[pairing]) + ": no move within a minute"};
    }
  }
  Cost& cost = costs_[pairing];
  const auto start = Clock::now();
  const auto cpu = device_cpu_seconds();
  while (Clock::now() < start + kAlone) {
    const auto taken = take_all(first, tables_.size());
    if (!taken) return taken.error();
    cost.moves += *taken;
  }
  if (cpu) cost.cpu_seconds = *device_cpu_seconds() - *cpu;
  cost.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return hold(first, tables_.size());
}

std::optional<Failure> Story::measure_each() {
  tables_.reserve(kPairings.size() * kBoardsEach);
  for (std::size_t i = 0; i < kPairings.size(); ++i) {
    if (auto failure = measure(i)) return failure;
  }
  tell(fmt::format("{} pairings of {} boards, for {} ms each and then held; now all together",
                   kPairings.size(), kBoardsEach, kAlone.count()));
  return std::nullopt;
}

std::optional<Failure> Story::all_together() {
  const std::uint64_t moves = moves_checked();
  std::vector<std::uint64_t> games;
  for (GameBoard& table : tables_) {
    games.push_back(table.score.games());
    const Pairing& pairing = kPairings[table.pairing];
    if (auto failure = set_players(table, pairing.o, pairing.x)) return failure;
  }
  const auto start = Clock::now();
  const auto cpu = device_cpu_seconds();
  const auto every_board_ended_a_game = [&] {
    for (std::size_t i = 0; i < tables_.size(); ++i) {
      if (tables_[i].score.games() == games[i]) return false;
    }
    return true;
  };
  while (Clock::now() < start + kTogether || !every_board_ended_a_game()) {
    if (const auto taken = take_all(0, tables_.size()); !taken) return taken.error();
    if (Clock::now() > start + kPatience) {
      return Failure{kFailure, "a board did not end a game within a minute"};
    }
  }
  if (cpu) together_cpu_ = *device_cpu_seconds() - *cpu;
  together_seconds_ = std::chrono::duration<double>(Clock::now() - start).count();
  together_moves_ = moves_checked() - moves;
  return std::nullopt;
}

void Story::print_results() const {
  Table text({"O - X", "games", "O wins", "X wins", "draws", "moves/s", "CPU/move"});
  for (std::size_t i = 0; i < kPairings.size(); ++i) {
    Score sum;
    for (const GameBoard& table : tables_) {
      if (table.pairing != i) continue;
      sum.o_wins += table.score.o_wins;
      sum.x_wins += table.score.x_wins;
      sum.draws += table.score.draws;
    }
    const Cost& cost = costs_[i];
    const auto share = [&](std::uint64_t games) {
      return fmt::format("{:.1f} %",
                         100.0 * static_cast<double>(games) /
                             static_cast<double>(std::max<std::uint64_t>(sum.games(), 1)));
    };
    text.add({title_of(kPairings[i]), human_count(sum.games()), share(sum.o_wins),
              share(sum.x_wins), share(sum.draws),
              human_count(static_cast<std::uint64_t>(cost.moves / cost.seconds)),
              cost.cpu_seconds && cost.moves > 0
                  ? human_time(std::chrono::nanoseconds(
                        static_cast<std::int64_t>(*cost.cpu_seconds / cost.moves * 1e9)))
                  : "-"});
  }
  fmt::print("\n");
  text.print();
  fmt::print("moves/s and the device's CPU: a pairing's {} boards alone.\n", kBoardsEach);
  fmt::print("All {} at once: {} moves/s", tables_.size(),
             human_count(static_cast<std::uint64_t>(static_cast<double>(together_moves_) /
                                                    together_seconds_)));
  if (together_cpu_) {
    fmt::print(", the device used {:.2f} CPUs", *together_cpu_ / together_seconds_);
  }
  fmt::print(".\n");
  std::fflush(stdout);
}

/// Leaves the board between two moves of a game, with some stones on it.
std::optional<Failure> Story::stop_amid_a_game(GameBoard& table) {
  const auto index = static_cast<std::size_t>(&table - tables_.data());
  const Pairing& pairing = kPairings[table.pairing];
  const auto patience = Clock::now() + kPatience;
  for (;;) {
    if (auto failure = hold(index, index + 1)) return failure;
    if (table.referee.stones() >= 2 && table.referee.stones() <= 6) return std::nullopt;
    if (Clock::now() > patience) return Failure{kFailure, "no game could be stopped in its midst"};
    if (auto failure = set_players(table, pairing.o, pairing.x)) return failure;
    if (const auto taken = take_all(index, index + 1); !taken) return taken.error();
  }
}

/// Every move of O has to be a perfect one from now on.
std::optional<Failure> Story::follow_perfect(GameBoard& table, Score& after, int& moves) {
  const auto solution = kxo::Solution::shared(kxo::Rules::standard());
  if (!solution) return Failure{kFailure, "the game was not solved"};
  const auto patience = Clock::now() + kPatience;
  while (after.games() < kGamesAfterSwitch) {
    kxo::Position position;
    for (std::size_t cell = 0; cell < table.referee.squares().size(); ++cell) {
      const char stone = table.referee.squares()[cell];
      if (stone == 'O') position.o |= kxo::cell_bit(static_cast<int>(cell));
      if (stone == 'X') position.x |= kxo::cell_bit(static_cast<int>(cell));
    }
    const auto move = table.board.wait(patience);
    if (!move) return Failure{kFailure, fmt::format("after a switch: {}", move.error().hint)};
    if (const std::string wrong = table.referee.check(*move); !wrong.empty()) {
      return Failure{kFailure, "after a switch: " + wrong};
    }
    if (!move->x) {
      ++moves;
      if (((*solution)->best(position) & kxo::cell_bit(move->cell)) == 0) {
        return Failure{kFailure, fmt::format("move {}: O was to play perfectly, cell {} is not",
                                             move->number, move->cell)};
      }
    }
    if (move->over) ++(move->draw ? after.draws : move->x ? after.x_wins : after.o_wins);
  }
  return std::nullopt;
}

std::optional<Failure> Story::switch_agent() {
  GameBoard& table = tables_[kRandomPairing * kBoardsEach + 2];
  if (auto failure = stop_amid_a_game(table)) return failure;
  step("An agent is switched in the midst of a game");
  const Score& before = table.score;
  tell(fmt::format("board 3, {}: O won {:.0f} % of {} games; {} stones into the next,",
                   title_of(kPairings[table.pairing]),
                   100.0 * static_cast<double>(before.o_wins) /
                       static_cast<double>(std::max<std::uint64_t>(before.games(), 1)),
                   human_count(before.games()), table.referee.stones()));
  if (auto failure = set_players(table, Player::kPerfect, Player::kRandom)) return failure;
  Score after;
  int moves = 0;
  if (auto failure = follow_perfect(table, after, moves)) return failure;
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
      return Failure{kFailure, "the queue of a killed client was not put within a minute"};
    }
    std::this_thread::sleep_for(milliseconds(1));
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
  const std::uint64_t moves = moves_checked();
  const auto patience = Clock::now() + kPatience;
  while (moves_checked() < moves + 1000) {
    if (const auto taken = take_all(0, tables_.size()); !taken) return taken.error();
    if (Clock::now() > patience) return Failure{kFailure, "our boards stopped with that client"};
  }
  tell(fmt::format("our {} boards play on", tables_.size()));
  return std::nullopt;
}

std::optional<Failure> Story::run() {
  if (auto failure = open()) return failure;
  if (auto failure = measure_each()) return failure;
  if (auto failure = all_together()) return failure;
  print_results();
  if (auto failure = switch_agent()) return failure;
  if (auto failure = kill_client()) return failure;
  fmt::print("\n{} moves, each checked by rules written a second time: all right\n",
             moves_checked());
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
