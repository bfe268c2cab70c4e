// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/games_device.hpp"

#include <array>

#include "apps/tandem/queue.hpp"
#include "tandem/kxo/solution.hpp"

namespace tandem::cli {
namespace {

constexpr std::array<std::string_view, TANDEM_KXO_PLAYERS> kNames = {
    "user", "mcts", "negamax", "td", "random", "perfect", "q"};

}  // namespace

Result<wd::kxo::Device, Failure> open_games_device() {
  auto device = wd::kxo::Device::open();
  if (device) return std::move(*device);
  // The plain interface tells the errno, from which follows what to try.
  const auto queue = Queue::open("game");
  if (!queue) return Unexpected{from_wd("opening the device of games", queue.error())};
  return Unexpected{
      Failure{kFailure, fmt::format("opening the device of games: {}", device.error().hint)}};
}

std::optional<wd::kxo::Player> device_player(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<wd::kxo::Player>(i);
  }
  return std::nullopt;
}

std::string_view name_of(wd::kxo::Player player) {
  return kNames[static_cast<std::size_t>(player)];
}

std::vector<std::string> playing_agents(const kxo::Rules& rules) {
  std::vector<std::string> names;
  for (std::size_t i = 1; i < kNames.size(); ++i) {
    const auto player = static_cast<wd::kxo::Player>(i);
    // Perfect play is a table, and who learns needs one, or a model of its own.
    const bool needs_table = player == wd::kxo::Player::kPerfect ||
                             player == wd::kxo::Player::kTd || player == wd::kxo::Player::kQ;
    if (!needs_table || rules.cells() <= kxo::Solution::kMostCells) names.emplace_back(kNames[i]);
  }
  return names;
}

}  // namespace tandem::cli
