// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/corpus.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>

namespace tandem::cli {
namespace {

namespace fs = std::filesystem;

/// Calls `visit(path, size)` for the readable regular files at and below `path`, by name, until it
/// says false.
template <class Visit>
bool walk(const fs::path& path, const Visit& visit) {
  std::error_code error;
  const auto status = fs::symlink_status(path, error);
  if (error) return true;
  if (fs::is_regular_file(status)) {
    const auto size = fs::file_size(path, error);
    if (error || size == 0 || ::access(path.c_str(), R_OK) != 0) return true;
    if (path.native().find('\n') != std::string::npos) return true;
    return visit(path.native(), size);
  }
  if (!fs::is_directory(status)) return true;
  std::vector<fs::path> entries;
  for (fs::directory_iterator entry(path, error), end; !error && entry != end;
       entry.increment(error)) {
    entries.push_back(entry->path());
  }
  std::sort(entries.begin(), entries.end());
  return std::all_of(entries.begin(), entries.end(),
                     [&](const fs::path& entry) { return walk(entry, visit); });
}

}  // namespace

void Corpus::add(std::string path, std::uint64_t size_bytes) {
  files_.push_back({std::move(path), size_bytes, blocks_});
  size_bytes_ += size_bytes;
  blocks_ += (size_bytes + kBlockBytes - 1) / kBlockBytes;
}

Result<Corpus, Failure> Corpus::of(const std::vector<std::string>& paths) {
  Corpus corpus;
  for (const std::string& path : paths) {
    struct stat found {};
    if (::stat(path.c_str(), &found) != 0 || ::access(path.c_str(), R_OK) != 0) {
      return Unexpected{from_errno(path, errno)};
    }
    std::error_code error;
    // A link that was named is followed; links below a directory are not.
    const fs::path real = fs::canonical(path, error);
    if (error) return Unexpected{from_errno(path, error.value())};
    walk(real, [&](const std::string& file, std::uint64_t size) {
      corpus.add(file, size);
      return true;
    });
  }
  if (corpus.blocks_ == 0) {
    return Unexpected{
        Failure{kUsage, "demo share: these files hold no data; try: tandem demo share"}};
  }
  return corpus;
}

Result<Corpus, Failure> Corpus::of_this_machine(std::uint64_t at_least) {
  // Programs, libraries, texts: a third each, then whatever there is.
  constexpr std::uint64_t kAtMost = std::uint64_t{16} << 20, kNotTiny = std::uint64_t{16} << 10;
  const std::vector<std::string> roots{"/usr/bin", "/usr/lib", "/usr/share"};
  Corpus corpus;
  for (std::size_t i = 0; i < roots.size(); ++i) {
    const std::uint64_t until = at_least * (i + 1) / roots.size();
    walk(roots[i], [&](const std::string& file, std::uint64_t size) {
      if (size >= kNotTiny && size <= kAtMost) corpus.add(file, size);
      return corpus.size_bytes_ < until;
    });
  }
  for (const char* root : {"/usr", "/lib", "/opt", "/etc", "/var/lib"}) {
    if (corpus.size_bytes_ >= at_least) break;
    walk(root, [&](const std::string& file, std::uint64_t size) {
      const bool known = std::any_of(corpus.files_.begin(), corpus.files_.end(),
                                     [&](const File& have) { return have.path == file; });
      if (!known) corpus.add(file, size);
      return corpus.size_bytes_ < at_least;
    });
  }
  if (corpus.blocks_ == 0) {
    return Unexpected{
        Failure{kNotFound, "demo share: no files in /usr; try: tandem demo share FILE…"}};
  }
  return corpus;
}

std::optional<Failure> Corpus::save(const std::string& list) const {
  std::ofstream out(list);
  for (const File& file : files_) out << file.size_bytes << ' ' << file.path << '\n';
  out.close();
  if (!out) return Failure{kFailure, list + ": cannot be written"};
  return std::nullopt;
}

Corpus Corpus::duplicate() const {
  Corpus copy;
  copy.files_ = files_;
  copy.size_bytes_ = size_bytes_;
  copy.blocks_ = blocks_;
  return copy;
}

Result<Corpus, Failure> Corpus::load(const std::string& list) {
  Corpus corpus;
  std::ifstream in(list);
  std::uint64_t size = 0;
  std::string path;
  while (in >> size && in.get() == ' ' && std::getline(in, path)) corpus.add(path, size);
  if (corpus.blocks_ == 0) return Unexpected{Failure{kFailure, list + ": not a list of files"}};
  return corpus;
}

std::size_t Corpus::read(std::uint64_t index, std::span<std::byte> to) {
  index %= blocks_;
  const auto after =
      std::upper_bound(files_.begin(), files_.end(), index,
                       [](std::uint64_t at, const File& file) { return at < file.first_block; });
  const auto file = static_cast<std::size_t>(after - files_.begin()) - 1;
  if (opened_ != file) {
    open_file_.reset(::open(files_[file].path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    opened_ = file;
  }
  if (!open_file_) return 0;
  const std::uint64_t offset = (index - files_[file].first_block) * kBlockBytes;
  const ssize_t got = ::pread(open_file_.get(), to.data(), std::min(to.size(), kBlockBytes),
                              static_cast<off_t>(offset));
  return got > 0 ? static_cast<std::size_t>(got) : 0;
}

}  // namespace tandem::cli
