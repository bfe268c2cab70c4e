// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tandem/base/unique_fd.hpp"
#include "tandem/kxo/value_model.hpp"

namespace tandem::kxo {
namespace {

static_assert(std::endian::native == std::endian::little);

struct Header {
  char magic[8] = {'t', 'n', 'd', 'm', 'k', 'x', 'o', '\n'};
  std::uint32_t version = 1;
  std::uint32_t kind = 0;
  std::uint32_t width = 0, height = 0, goal = 0;
  std::uint32_t reserved = 0;
  std::uint64_t games = 0;
  std::uint64_t count = 0;
};
static_assert(sizeof(Header) == 48);

using Checksum = std::uint64_t;
/// More than any model of a board of 64 cells has.
constexpr std::uint64_t kMostWords = std::uint64_t{1} << 28;

/// FNV-1a. One byte that is changed changes it.
Checksum checksum(const std::string& bytes) noexcept {
  Checksum sum = 0xcbf29ce484222325;
  for (const char byte : bytes) sum = (sum ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
  return sum;
}

template <class T>
void append(std::string& bytes, const T* data, std::size_t count) {
  bytes.append(reinterpret_cast<const char*>(data), count * sizeof(T));
}

Unexpected<std::string> fail(const std::string& path, const std::string& why) {
  return Unexpected{path + ": " + why};
}
Unexpected<std::string> fail_errno(const std::string& path) {
  return fail(path, std::strerror(errno));
}

bool write_all(int fd, const std::string& bytes) noexcept {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t wrote = ::write(fd, bytes.data() + done, bytes.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return false;
    done += static_cast<std::size_t>(wrote);
  }
  return true;
}

/// Makes a new name of a file last.
bool sync_directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return fd && ::fsync(fd.get()) == 0;
}

Result<std::string, std::string> read_all(const std::string& path) {
  // A pipe or a terminal would never end.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) return fail_errno(path);
  if (!S_ISREG(status.st_mode)) return fail(path, "is no regular file");
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size > sizeof(Header) + kMostWords * 4 + sizeof(Checksum)) {
    return fail(path, "is too large for a model");
  }
  std::string bytes(size, '\0');
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = ::read(fd.get(), bytes.data() + done, bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(path);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  bytes.resize(done);
  return bytes;
}

std::string name_of(std::uint32_t width, std::uint32_t height, std::uint32_t goal) {
  return std::to_string(width) + "," + std::to_string(height) + "," + std::to_string(goal);
}

}  // namespace

Result<void, std::string> save_model(const std::string& path, const ValueModel& model,
                                     std::uint64_t games) {
  const std::vector<std::uint32_t> words = model.save();
  Header header;
  header.kind = static_cast<std::uint32_t>(model.kind());
  header.width = static_cast<std::uint32_t>(model.rules().width());
  header.height = static_cast<std::uint32_t>(model.rules().height());
  header.goal = static_cast<std::uint32_t>(model.rules().goal());
  header.games = games;
  header.count = words.size();
  std::string bytes;
  bytes.reserve(sizeof header + words.size() * 4 + sizeof(Checksum));
  append(bytes, &header, 1);
  append(bytes, words.data(), words.size());
  const Checksum sum = checksum(bytes);
  append(bytes, &sum, 1);

  std::string partial = path + ".XXXXXX";
  const UniqueFd fd(::mkostemp(partial.data(), O_CLOEXEC));
  if (!fd) return fail_errno(path);
  // mkostemp() keeps others from reading it; a model is no secret.
  if (!write_all(fd.get(), bytes) || ::fchmod(fd.get(), 0644) != 0 || ::fsync(fd.get()) != 0 ||
      std::rename(partial.c_str(), path.c_str()) != 0) {
    const auto failed = fail_errno(path);
    ::unlink(partial.c_str());
    return failed;
  }
  if (!sync_directory_of(path)) return fail_errno(path);
  return {};
}

Result<TrainedModel, std::string> load_model(const std::string& path, const Rules& rules) {
  const auto bytes = read_all(path);
  if (!bytes) return Unexpected{bytes.error()};
  Header header;
  const std::size_t magic = sizeof header.magic;
  if (bytes->size() < magic || std::memcmp(bytes->data(), header.magic, magic) != 0) {
    return fail(path, "is no model of kxo");
  }
  if (bytes->size() < sizeof header) return fail(path, "is cut short");
  std::memcpy(&header, bytes->data(), sizeof header);
  if (header.version != 1) {
    return fail(path, "has version " + std::to_string(header.version) + ", known is 1");
  }
  if (header.count > kMostWords) return fail(path, "is damaged");
  const std::size_t end = sizeof header + header.count * 4;
  if (bytes->size() != end + sizeof(Checksum)) {
    return fail(path, bytes->size() < end + sizeof(Checksum) ? "is cut short" : "is too long");
  }
  Checksum sum = 0;
  std::memcpy(&sum, bytes->data() + end, sizeof sum);
  if (sum != checksum(bytes->substr(0, end))) return fail(path, "is damaged");
  const std::string game = name_of(header.width, header.height, header.goal);
  const std::string wanted =
      name_of(static_cast<std::uint32_t>(rules.width()), static_cast<std::uint32_t>(rules.height()),
              static_cast<std::uint32_t>(rules.goal()));
  if (game != wanted) return fail(path, "is a model of " + game + ", not of " + wanted);
  TrainedModel trained{ValueModel::make(rules), header.games};
  std::vector<std::uint32_t> words(header.count);
  std::memcpy(words.data(), bytes->data() + sizeof header, header.count * 4);
  if (header.kind != static_cast<std::uint32_t>(trained.model->kind()) ||
      !trained.model->load(words)) {
    return fail(path, "does not fit the game");
  }
  return trained;
}

}  // namespace tandem::kxo
