// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/tandem/cli.hpp"
#include "tandem/base/result.hpp"
#include "tandem/kxo/rules.hpp"
#include "tandem/wd/kxo.hpp"

namespace tandem::cli {

/// The device of games, where TANDEM says.
Result<wd::kxo::Device, Failure> open_games_device();

/// Agents of the device by name: "mcts", …; "user" is the client.
/// Returns: nothing when there is none of that name.
std::optional<wd::kxo::Player> device_player(std::string_view name);
std::string_view name_of(wd::kxo::Player player);
/// Those that play this game by themselves, without being told more than their names.
std::vector<std::string> playing_agents(const kxo::Rules& rules);

}  // namespace tandem::cli
