// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apps/screen/game_record.hpp"
#include "apps/tandem/cli.hpp"

namespace tandem::cli {

/// All games of a file.
Result<std::vector<screen::GameRecord>, Failure> read_games(std::string_view command,
                                                            const std::string& path);
/// Whether games can be added to the file, which is made if there is none; no path is fine.
std::optional<Failure> check_games_file(std::string_view command, const std::string& path);
/// Adds them behind those that are there: all of them, or none when there is no space.
std::optional<Failure> add_games(std::string_view command, const std::string& path,
                                 const std::vector<screen::GameRecord>& games);

}  // namespace tandem::cli
