// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/stat.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "apps/tandem/cli.hpp"
#include "tandem/base/result.hpp"
#include "tandem/base/unique_fd.hpp"

namespace tandem::cli {

/// Writes everything to `fd`. Returns 0 or the errno.
int write_all(int fd, std::span<const std::byte> bytes) noexcept;

/// A file that appears under its name when it is complete, or not at all.
///
/// It is written under a temporary name in the same directory. commit() gives it the source's mode,
/// times and, where allowed, owner, makes it durable, and renames it. Without commit(), and on
/// SIGINT, SIGTERM, SIGHUP, SIGPIPE and SIGXCPU, the temporary file is removed.
/// Thread safety: one at a time in a process.
class OutputFile {
 public:
  /// Errors: exists already and not `replace`, or is not a regular file, which is never replaced;
  /// the directory's errors.
  /// `instead`: how to have standard output, which the shell may send anywhere.
  static Result<OutputFile, Failure> create(const std::string& path, bool replace,
                                            std::string_view instead);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  int fd() const { return fd_.get(); }
  /// `durable`: the data is on disk when this returns, as it must be before a source is removed.
  std::optional<Failure> commit(const struct stat& source, bool durable);

 private:
  OutputFile(std::string path, bool replace) : path_(std::move(path)), replace_(replace) {}
  std::string path_, temporary_;
  bool replace_;
  UniqueFd fd_;
};

}  // namespace tandem::cli
