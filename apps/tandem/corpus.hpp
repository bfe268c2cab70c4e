// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "apps/tandem/cli.hpp"
#include "tandem/base/result.hpp"
#include "tandem/base/unique_fd.hpp"

namespace tandem::cli {

/// Real files, cut into blocks.
///
/// Thread safety: one thread; each tenant loads its own from the list.
class Corpus {
 public:
  static constexpr std::size_t kBlockBytes = std::size_t{64} * 1024;

  /// The files given (directories: everything below, in order of name).
  static Result<Corpus, Failure> of(const std::vector<std::string>& paths);
  /// Files of this machine, always the same ones, `at_least` bytes if it has so many.
  static Result<Corpus, Failure> of_this_machine(std::uint64_t at_least);
  /// What save() wrote.
  static Result<Corpus, Failure> load(const std::string& list);
  /// The same files, for another thread.
  Corpus duplicate() const;
  std::optional<Failure> save(const std::string& list) const;

  std::size_t files() const { return files_.size(); }
  std::uint64_t size_bytes() const { return size_bytes_; }
  std::uint64_t blocks() const { return blocks_; }
  /// Reads block `index` (modulo their number) into `to`, at most to.size() bytes.
  /// Returns: its bytes; 0 when the file has shrunk or gone.
  std::size_t read(std::uint64_t index, std::span<std::byte> to);

 private:
  struct File {
    std::string path;
    std::uint64_t size_bytes, first_block;
  };
  void add(std::string path, std::uint64_t size_bytes);
  std::vector<File> files_;
  std::uint64_t size_bytes_ = 0, blocks_ = 0;
  std::size_t opened_ = SIZE_MAX;
  UniqueFd open_file_;
};

}  // namespace tandem::cli
