// SPDX-License-Identifier: Apache-2.0
#include "bench/corpus.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace tandem::bench {
namespace {

namespace fs = std::filesystem;

/// Regular files of 4 KiB to 4 MiB below `directory`, by name.
std::vector<std::string> files_below(const char* directory) {
  std::vector<std::string> files;
  std::error_code error;
  for (fs::recursive_directory_iterator
           at(directory, fs::directory_options::skip_permission_denied, error),
       end;
       at != end && files.size() < 4000; at.increment(error)) {
    if (error) break;
    std::error_code ignored;
    if (at->is_symlink(ignored) || !at->is_regular_file(ignored)) continue;
    const auto size = at->file_size(ignored);
    if (!ignored && size >= 4096 && size <= (4u << 20)) files.push_back(at->path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

void append(std::vector<std::byte>& data, const std::string& path, std::size_t limit) {
  std::ifstream file(path, std::ios::binary);
  std::array<char, 1 << 16> piece;
  while (data.size() < limit && (file.read(piece.data(), piece.size()) || file.gcount() > 0)) {
    const auto got = std::min(static_cast<std::size_t>(file.gcount()), limit - data.size());
    const auto* bytes = reinterpret_cast<const std::byte*>(piece.data());
    data.insert(data.end(), bytes, bytes + got);
  }
}

}  // namespace

std::vector<std::byte> make_corpus(std::size_t size_bytes) {
  const std::array lists = {files_below("/usr/bin"), files_below("/usr/include"),
                            files_below("/usr/lib"), files_below("/usr/share")};
  std::vector<std::byte> data;
  data.reserve(size_bytes);
  std::size_t longest = 0;
  for (const auto& list : lists) longest = std::max(longest, list.size());
  if (longest == 0) throw std::runtime_error("no files below /usr to measure with");
  while (data.size() < size_bytes) {
    for (std::size_t i = 0; i < longest && data.size() < size_bytes; ++i) {
      for (const auto& list : lists) {
        if (i < list.size()) append(data, list[i], size_bytes);
      }
    }
  }
  return data;
}

}  // namespace tandem::bench
