// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/cli.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <system_error>

#include "tandem/wd/wd.h"

namespace tandem::cli {

Failure from_errno(std::string_view what, int error) {
  ExitCode code = kFailure;
  if (error == ENOENT || error == ENOTDIR) code = kNotFound;
  if (error == EACCES || error == EPERM) code = kDenied;
  return {code, fmt::format("{}: {}", what, std::generic_category().message(error))};
}

ExitCode code_of_unreadable(const std::string& path) {
  return ::access(path.c_str(), R_OK) == 0 ? kFailure : from_errno(path, errno).code;
}

Failure from_wd(std::string_view what, int error) {
  const char* const set = std::getenv("TANDEM");
  const std::string_view mode = set != nullptr ? set : "auto";
  const bool by_socket = mode.starts_with("unix:");
  const bool in_process = mode == "embedded" || mode == "inline";
  const bool known = by_socket || in_process || mode.empty() || mode == "auto";
  if (!known) {
    return {kUsage, fmt::format("TANDEM={}: no such mode; try: TANDEM=auto, embedded, inline or "
                                "unix:PATH",
                                mode)};
  }
  if (by_socket && mode.size() == 5) {
    return {kUsage, "TANDEM=unix: names no socket; try: TANDEM=unix:PATH"};
  }
  if (error == -EINVAL && !in_process) {
    const char* const trust = std::getenv("TANDEM_TRUST");
    if (trust != nullptr && *trust != '\0' && std::string_view(trust) != "reserved-only") {
      return {kUsage, fmt::format("TANDEM_TRUST={}: means nothing; try: reserved-only, or unset it",
                                  trust)};
    }
    const char* const user = std::getenv("TANDEM_TRUST_UID");
    if (user != nullptr &&
        std::string_view(user).find_first_not_of("0123456789") != std::string_view::npos) {
      return {kUsage,
              fmt::format("TANDEM_TRUST_UID={}: is no user's number; try: id -u {}", user, user)};
    }
  }
  switch (error) {
    case -EAGAIN:  // opening a queue: of a thread
      return {kFailure,
              fmt::format("{}: no thread can be started; raise the limit of processes", what)};
    case -EACCES:
    case -EPERM:
      if (in_process) {
        return {kDenied, fmt::format("{}: /proc/self/mem and /proc/self/maps cannot be opened; is "
                                     "/proc mounted?",
                                     what)};
      }
      return {kDenied, fmt::format("{}: {}; try: TANDEM=embedded", what, wd_strerror(error))};
    case -ENODEV:
    case -ENOENT:
    case -ECONNREFUSED:
      if (by_socket) {
        const std::string_view path = mode.substr(5);
        return {
            kBrokerUnreachable,
            fmt::format("{}: no broker answers at {}; try: tandemd --socket {}", what, path, path)};
      }
      return {kNotFound, fmt::format("{}: {}; try: tandem devices", what, wd_strerror(error))};
    case -ESHUTDOWN:
      if (in_process) {
        return {kFailure, fmt::format("{}: {}", what, wd_strerror(error))};
      }
      return {kBrokerUnreachable,
              fmt::format("{}: the broker hung up: it has ended, or takes no more clients; see its "
                          "log",
                          what)};
    case -ETIMEDOUT:
    case -EPROTO:
      return {kBrokerUnreachable, fmt::format("{}: {}", what, wd_strerror(error))};
    default:
      return {kFailure, fmt::format("{}: {}", what, wd_strerror(error))};
  }
}

int report(const Failure& failure) {
  warn(failure.text);
  return failure.code;
}

void warn(std::string_view text) {
  const std::string line = fmt::format("tandem: {}\n", text);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

bool styled(int fd) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return ::isatty(fd) == 1 && (no_color == nullptr || *no_color == '\0') && term != nullptr &&
         std::string_view(term) != "dumb";
}

std::string bold(std::string_view text, int fd) {
  return styled(fd) ? fmt::format("\033[1m{}\033[0m", text) : std::string(text);
}

std::string dim(std::string_view text, int fd) {
  return styled(fd) ? fmt::format("\033[2m{}\033[0m", text) : std::string(text);
}

std::string human_bytes(double bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", bytes, unit == 0 || bytes >= 100 ? 0 : 1, kUnits[unit]);
}

std::string human_count(std::uint64_t count) {
  if (count < 10000) return fmt::format("{}", count);
  if (count < 1000000) return fmt::format("{:.1f}k", static_cast<double>(count) / 1e3);
  return fmt::format("{:.1f}M", static_cast<double>(count) / 1e6);
}

std::string human_time(std::chrono::nanoseconds time) {
  const auto ns = static_cast<double>(time.count());
  const auto three_digits = [](double value, const char* unit) {
    return fmt::format("{:.{}f} {}", value, value >= 100 ? 0 : value >= 10 ? 1 : 2, unit);
  };
  if (ns < 1e3) return fmt::format("{:.0f} ns", ns);
  if (ns < 1e6) return three_digits(ns / 1e3, "us");
  if (ns < 1e9) return three_digits(ns / 1e6, "ms");
  return three_digits(ns / 1e9, "s");
}

Table::Table(std::vector<std::string> header) { rows_.push_back(std::move(header)); }

void Table::add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }

void Table::print() const {
  std::vector<std::size_t> width(rows_.front().size(), 0);
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
  }
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    std::string line;
    for (std::size_t i = 0; i < rows_[r].size(); ++i) {
      line += i == 0 ? fmt::format("{:<{}}", rows_[r][i], width[i])
                     : fmt::format("  {:>{}}", rows_[r][i], width[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    fmt::print("{}\n", r == 0 ? bold(line, STDOUT_FILENO) : line);
  }
}

}  // namespace tandem::cli
