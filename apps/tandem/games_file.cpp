// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/games_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <span>

#include "apps/tandem/output_file.hpp"
#include "tandem/base/unique_fd.hpp"
#include "tandem/kxo/whole_file.hpp"

namespace tandem::cli {
namespace {

/// Ten million games and more.
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;
/// The first line, whichever way it ends.
constexpr std::string_view kFirstWords =
    screen::kGamesHeader.substr(0, screen::kGamesHeader.size() - 1);
/// With which a file of kxo::save_match() begins; kFirstWords.size() of them are read.
constexpr std::string_view kMatchWords = "tandem kxo match ";

Failure cannot(std::string_view command, const std::string& path, int error) {
  Failure failure = from_errno(fmt::format("{}: {}", command, path), error);
  failure.text += "; try: another --save FILE";
  return failure;
}

/// A file to add to, and how long it is.
struct OpenFile {
  UniqueFd fd;
  off_t size = 0;
};

Result<OpenFile, Failure> open_to_add(std::string_view command, const std::string& path) {
  // A pipe that nobody reads would be waited for.
  const int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK;
  OpenFile file{UniqueFd(::open(path.c_str(), flags, 0666)), 0};
  struct stat status {};
  if (file.fd && ::fstat(file.fd.get(), &status) == 0 && S_ISREG(status.st_mode)) {
    file.size = status.st_size;
    return file;
  }
  if (!file.fd && errno != ENXIO) return Unexpected{cannot(command, path, errno)};
  return Unexpected{Failure{kUsage, fmt::format("{}: {}: is no regular file; try: another --save "
                                                "FILE",
                                                command, path)}};
}

}  // namespace

Result<std::vector<screen::GameRecord>, Failure> read_games(std::string_view command,
                                                            const std::string& path) {
  const auto wrong = [&](ExitCode code, const std::string& why) {
    return Unexpected{
        Failure{code, fmt::format("{}: {}; try: a file of tandem kxo play --save", command, why)}};
  };
  const auto text = kxo::read_whole_file(path, kMostBytes, kFirstWords);
  if (!text) return wrong(code_of_unreadable(path), text.error());
  if (text->empty()) return std::vector<screen::GameRecord>();  // --save made it; no game came
  auto games = screen::parse_games(*text);
  if (!games && text->starts_with(kMatchWords.substr(0, kFirstWords.size()))) {
    return Unexpected{Failure{
        kFailure, fmt::format("{}: {}: is of tandem kxo match --save, not a file of games; try: "
                              "tandem kxo match --resume --save {}",
                              command, path, path)}};
  }
  if (!games) return wrong(kFailure, path + ": " + games.error());
  return std::move(*games);
}

std::optional<Failure> check_games_file(std::string_view command, const std::string& path) {
  if (path.empty()) return std::nullopt;
  const auto file = open_to_add(command, path);
  if (!file) return file.error();
  if (file->size == 0) return std::nullopt;
  const auto games = read_games(command, path);
  if (games) return std::nullopt;
  return Failure{kUsage, games.error().text};
}

std::optional<Failure> add_games(std::string_view command, const std::string& path,
                                 const std::vector<screen::GameRecord>& games) {
  const auto file = open_to_add(command, path);
  if (!file) return file.error();
  std::string text;
  if (file->size == 0) text += screen::kGamesHeader;
  for (const auto& game : games) text += screen::record_text(game);
  const int error = write_all(file->fd.get(), std::as_bytes(std::span(text)));
  if (error == 0) return std::nullopt;
  // Half a game would keep the others from being read. It stays where it cannot be taken back.
  (void)!::ftruncate(file->fd.get(), file->size);
  return cannot(command, path, error);
}

}  // namespace tandem::cli
