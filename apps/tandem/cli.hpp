// SPDX-License-Identifier: Apache-2.0
/// What every subcommand of `tandem` shares: exit codes, messages, numbers for people.
///
/// Data goes to standard output, narration to standard error. A message is "what: why; try:
/// command".
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::cli {

enum ExitCode : int {
  kOk = 0,
  kFailure = 1,
  kUsage = 2,
  kNotFound = 3,
  kDenied = 4,
  kBrokerUnreachable = 5,
  kDegraded = 6,
};

/// Why a command failed, ready to be told.
struct Failure {
  ExitCode code = kFailure;
  std::string text;  ///< "what: why; try: command"
};

/// A failure from an errno: ENOENT is "not found", EACCES and EPERM are "denied".
Failure from_errno(std::string_view what, int error);
/// For a file that could not be read: there is none, it may not be read, or something else.
ExitCode code_of_unreadable(const std::string& path);
/// A failure to open a queue: `error` is a negative errno of wd.
Failure from_wd(std::string_view what, int error);

/// Says "tandem: TEXT" on standard error and returns the code.
int report(const Failure& failure);
/// Says "tandem: TEXT" on standard error.
void warn(std::string_view text);

/// Narration, on standard error; one that takes nothing is no reason to end.
template <class... Arguments>
void narrate(fmt::format_string<Arguments...> text, Arguments&&... arguments) {
  std::fputs(fmt::format(text, std::forward<Arguments>(arguments)...).c_str(), stderr);
}

/// Whether escape sequences are welcome on `fd`: a terminal, TERM not dumb, NO_COLOR not set.
bool styled(int fd);
std::string bold(std::string_view text, int fd);
std::string dim(std::string_view text, int fd);

std::string human_bytes(double bytes);                  ///< "1.5 MiB"
std::string human_count(std::uint64_t count);           ///< "12.3k"
std::string human_time(std::chrono::nanoseconds time);  ///< "1.25 ms"

/// A text of columns; the first is left-aligned, the others right-aligned.
class Table {
 public:
  explicit Table(std::vector<std::string> header);
  void add(std::vector<std::string> row);
  /// Prints to standard output, two spaces between columns.
  void print() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

class Command;

// Each adds a subcommand.
void add_compress(const Command& app);
void add_devices(const Command& app);
void add_demo(const Command& app);
void add_kxo(const Command& app);
void add_trace(const Command& app);
void add_internal(const Command& app);

}  // namespace tandem::cli
