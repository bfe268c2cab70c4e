// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/games_file.hpp"

#include <cerrno>
#include <fstream>
#include <sstream>

namespace tandem::cli {
namespace {

Failure cannot(std::string_view command, const std::string& path) {
  return from_errno(fmt::format("{}: {}", command, path), errno != 0 ? errno : EIO);
}

}  // namespace

Result<std::vector<screen::GameRecord>, Failure> read_games(std::string_view command,
                                                            const std::string& path) {
  errno = 0;
  std::ifstream file(path);
  std::ostringstream text;
  if (!file || (file.peek() != EOF && !(text << file.rdbuf()))) {
    return Unexpected{cannot(command, path)};
  }
  auto games = screen::parse_games(text.str());
  if (games) return std::move(*games);
  return Unexpected{Failure{kFailure, fmt::format("{}: {}: {}; try: a file of tandem kxo play "
                                                  "--save",
                                                  command, path, games.error())}};
}

std::optional<Failure> check_games_file(std::string_view command, const std::string& path) {
  if (path.empty()) return std::nullopt;
  errno = 0;
  std::ofstream file(path, std::ios::app);
  if (!file) return cannot(command, path);
  if (file.tellp() == std::streampos(0)) return std::nullopt;
  auto games = read_games(command, path);
  if (games) return std::nullopt;
  return Failure{kUsage, games.error().text};
}

std::optional<Failure> add_games(std::string_view command, const std::string& path,
                                 const std::vector<screen::GameRecord>& games) {
  errno = 0;
  std::ofstream file(path, std::ios::app);
  if (file.tellp() == std::streampos(0)) file << screen::kGamesHeader;
  for (const auto& game : games) file << screen::record_text(game);
  file.close();
  return file ? std::nullopt : std::optional(cannot(command, path));
}

}  // namespace tandem::cli
