// SPDX-License-Identifier: Apache-2.0
/// `tandem bench kxo`: agents alone, and boards on the embedded device. Upstream's figures are
/// constants, measured once on a machine of this kind: its module is not part of the run.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <utility>

#include "bench/harness.hpp"
#include "bench/kxo_agents.hpp"
#include "bench/kxo_boards.hpp"
#include "tandem/trace/trace.hpp"

namespace tandem::bench {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using wd::Path;
using wd::kxo::Player;
using Target = Case::Target;

constexpr const char* kUpstreamMcts = "upstream's MCTS, the best of its runs: a constant";
constexpr double kUpstreamIterations = 164'000;  // a second, in the opening of 4x4-3
constexpr const char* kUpstreamNegamax =
    "upstream's negamax, as many moves at 2 ms: a constant, the least of 2 to 12 ms";
constexpr double kUpstreamMoveSeconds = 0.002;
constexpr double kUpstreamKeptPercent = 96.2;  // moves of its negamax that keep the game's value
constexpr const char* kUpstreamTick = "upstream's tick of 10 Hz, half of it: a constant";
constexpr double kUpstreamAnswerUs = 50'000;

constexpr double kTracedNs = 500;  // 5 % of a core at 100,000 moves/s
constexpr double kConstant = 3;    // times as long: farther caches, but no walk over 10,000 boards
constexpr double kMega = 1e6;

kxo::Rules draw() { return kxo::Rules::make(4, 4, 4).value(); }
kxo::Rules large() { return kxo::Rules::make(7, 7, 5).value(); }

/// Made when it is first asked for: a case may be left out.
template <class T>
auto later(std::function<T()> make) {
  auto made = std::make_shared<std::unique_ptr<T>>();
  return [made, make = std::move(make)]() -> T& {
    if (*made == nullptr) *made = std::make_unique<T>(make());
    return **made;
  };
}

std::vector<Case> agent_cases(bool quick) {
  const int scale = quick ? 1 : 10;
  const auto standard = kxo::Rules::standard();
  const auto frugal = later<Frugal>([=] { return frugal_negamax(standard, kUpstreamKeptPercent); });
  const auto game = [=] { return negamax_game(standard, frugal().nodes, 20 * scale); };
  return {
      {.name = "kxo/playouts",
       .unit = "M/s",
       .peer_name = "",
       .higher_is_better = true,
       .target = Target::kAtLeast,
       .limit = 5.5,
       .ours = [=] { return playouts_per_second(standard, 100'000 * scale) / kMega; }},
      {.name = "kxo/mcts:10000/4x4-3",
       .unit = "M/s",
       .peer_name = kUpstreamMcts,
       .higher_is_better = true,
       .target = Target::kAtLeast,
       .limit = 2.5,
       .ours = [=] { return mcts_iterations_per_second(standard, 10 * scale) / kMega; },
       .peer = [] { return kUpstreamIterations / kMega; }},
      {.name = "kxo/mcts:10000/4x4-4",
       .unit = "M/s",
       .peer_name = "",
       .higher_is_better = true,
       .target = Target::kAtLeast,
       .limit = 2.5,
       .ours = [=] { return mcts_iterations_per_second(draw(), 5 * scale) / kMega; }},
      {.name = "kxo/mcts:5ms/7x7-5/threads:2",
       .unit = "M/s",
       .peer_name = "one thread",
       .higher_is_better = true,
       .target = Target::kNone,
       .ours = [=] { return mcts_threads_iterations_per_second(large(), 2, 2 * scale) / kMega; },
       .peer = [=] { return mcts_threads_iterations_per_second(large(), 1, 2 * scale) / kMega; }},
      {.name = "kxo/negamax/4x4-4",
       .unit = "Mnode/s",
       .peer_name = "",
       .higher_is_better = true,
       .target = Target::kNone,
       .ours = [=] { return negamax_nodes_per_second(draw(), 2 * scale) / kMega; }},
      {.name = "kxo/strength/negamax",
       .unit = "%",
       .peer_name = "upstream's negamax: a constant",
       .higher_is_better = true,
       .target = Target::kAtLeast,
       .limit = kUpstreamKeptPercent,
       .ours = [=] { return frugal().kept_percent; },
       .peer = [] { return kUpstreamKeptPercent; },
       .samples = 1},
      {.name = "kxo/game/negamax",
       .unit = "ms",
       .peer_name = kUpstreamNegamax,
       .target = Target::kTimesFaster,
       .limit = 20,
       .ours = [=] { return game().seconds * 1e3; },
       .peer = [=] { return game().moves * kUpstreamMoveSeconds * 1e3; }},
      {.name = "kxo/solve:4x4-4",
       .unit = "s",
       .peer_name = "",
       .target = Target::kAtMost,
       .limit = 2,
       .ours = [] { return solve_seconds(draw()); },
       .samples = 3},
      {.name = "kxo/solve:4x4-4/memory",
       .unit = "MB",
       .peer_name = "",
       .target = Target::kAtMost,
       .limit = 100,
       .ours = [] { return solve_bytes(draw()) / kMega; },
       .samples = 1},
  };
}

Case moves_case(std::size_t boards, milliseconds length) {
  const auto made = later<Boards>([boards] {
    return Boards(Path::kEmbedded, boards, {.o = Player::kRandom, .x = Player::kRandom});
  });
  return {.name = fmt::format("kxo/moves/boards:{}", boards),
          .unit = "M/s",
          .peer_name = "",
          .higher_is_better = true,
          .target = Target::kNone,
          .ours = [=] { return made().moves_per_second(length) / kMega; }};
}

/// What a move costs more while its events are recorded.
double traced_ns(Boards& boards, int count) {
  trace::enable(static_cast<trace::Categories>(trace::Category::kKxo));
  const double with = boards.cpu_ns_per_move(count);
  trace::enable(trace::kNoCategories);
  return std::max(0.0, with - boards.cpu_ns_per_move(count));
}

std::vector<Case> device_cases(bool quick) {
  const auto length = milliseconds(quick ? 100 : 500);
  const int count = quick ? 20'000 : 200'000;
  constexpr std::size_t kMany = 10'000;
  const auto caller = later<Boards>(
      [] { return Boards(Path::kInline, 16, {.o = Player::kRandom, .x = Player::kRandom}); });
  const auto opponent =
      later<Boards>([] { return Boards(Path::kEmbedded, 1, {.x = Player::kRandom}); });
  const auto answers = [=](microseconds pause) {
    return opponent().answers(pause.count() == 0 ? count / 20 : count / 200, pause);
  };
  std::vector<Case> list = {
      {.name = "kxo/move/in-caller",
       .unit = "ns",
       .peer_name = "",
       .target = Target::kNone,
       .ours = [=] { return caller().cpu_ns_per_move(count); }},
      {.name = "kxo/move/traced",
       .unit = "ns",
       .peer_name = "",
       .target = Target::kAtMost,
       .limit = kTracedNs,
       .ours = [=] { return traced_ns(caller(), count); }},
      moves_case(1, length),
      moves_case(100, length),
      moves_case(kMany, length),
  };
  for (const auto& [name, pause] : {std::pair{"kxo/answer", microseconds(0)},
                                    std::pair{"kxo/answer/after-1ms", microseconds(1000)}}) {
    list.push_back({.name = fmt::format("{}/p50", name),
                    .unit = "us",
                    .peer_name = kUpstreamTick,
                    .target = Target::kNone,
                    .ours = [=] { return answers(pause).median_us; },
                    .peer = [] { return kUpstreamAnswerUs; }});
    list.push_back({.name = fmt::format("{}/p99", name),
                    .unit = "us",
                    .peer_name = "",
                    .target = Target::kNone,
                    .ours = [=] { return answers(pause).p99_us; }});
  }
  const auto waiting = [](std::size_t boards) {
    return later<Boards>([boards] { return Boards(Path::kInline, boards, {}); });
  };
  const auto one = waiting(1), many = waiting(kMany);
  list.push_back({.name = "kxo/id/boards:10000",
                  .unit = "ns",
                  .peer_name = "beside one board",
                  .target = Target::kAtMostRatio,
                  .limit = kConstant,
                  .ours = [=] { return many().cpu_ns_per_id(count / 4); },
                  .peer = [=] { return one().cpu_ns_per_id(count / 4); }});
  list.push_back(
      {.name = "kxo/bytes-a-move",
       .unit = "B",
       .peer_name = "",
       .target = Target::kNone,
       .ours =
           [] {
             return static_cast<double>(tandem_kxo_ring_size(128) - tandem_kxo_ring_size(64)) / 64;
           },
       .samples = 1});
  list.push_back({.name = "kxo/idle-boards:10000",
                  .unit = "%",
                  .peer_name = "",
                  .target = Target::kAtMost,
                  .limit = 0.5,
                  .ours = [=] { return idle_percent(kMany, 5 * length); },
                  .samples = 3});
  list.push_back({.name = "kxo/memory-per-board",
                  .unit = "B",
                  .peer_name = "",
                  .target = Target::kNone,
                  .ours = [] { return bytes_per_board(kMany); },
                  .samples = 1});
  return list;
}

std::vector<Case> cases(const Options& options) {
  auto list = agent_cases(options.quick);
  for (Case& each : device_cases(options.quick)) list.push_back(std::move(each));
  return list;
}

}  // namespace

Area kxo_area() {
  return {.name = "kxo", .what = "game agents, and boards on the game device", .cases = cases};
}

}  // namespace tandem::bench
