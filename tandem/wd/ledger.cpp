// SPDX-License-Identifier: Apache-2.0
#include "tandem/wd/detail/ledger.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstring>
#include <string_view>

namespace tandem::wd::detail {
namespace {

constexpr std::uint64_t kFnvBasis = 0xcbf29ce484222325;
constexpr std::uint64_t kFnvPrime = 0x100000001b3;

std::uint64_t hash_more(std::uint64_t hash, std::string_view text) noexcept {
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * kFnvPrime;
  return hash;
}

/// Reads /proc/self/fdinfo/`fd` into `buffer`; empty when it cannot. Allocates nothing.
std::string_view read_fdinfo(int fd, std::array<char, 4096>& buffer) noexcept {
  constexpr std::string_view kDirectory = "/proc/self/fdinfo/";
  std::array<char, 48> path{};
  std::memcpy(path.data(), kDirectory.data(), kDirectory.size());
  std::to_chars(path.data() + kDirectory.size(), path.data() + path.size() - 1, fd);
  const UniqueFd file(::open(path.data(), O_RDONLY | O_CLOEXEC));
  if (!file) return {};
  const ssize_t length = ::read(file.get(), buffer.data(), buffer.size());
  return length > 0 ? std::string_view(buffer.data(), static_cast<std::size_t>(length))
                    : std::string_view();
}

/// Hash of the lines that tell one anonymous file from another; 0 when there are none.
std::uint64_t anonymous_identity(int fd) noexcept {
  std::array<char, 4096> buffer;
  std::uint64_t hash = kFnvBasis;
  bool found = false;
  for (std::string_view rest = read_fdinfo(fd, buffer); !rest.empty();) {
    const auto end = rest.find('\n');
    const auto line = rest.substr(0, end);
    if (line.starts_with("eventfd-id:") || line.starts_with("tfd:")) {
      hash = hash_more(hash, line);
      found = true;
    }
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  }
  return found ? hash : 0;
}

}  // namespace

FileIdentity FileIdentity::of(int fd) noexcept {
  FileIdentity identity;
  struct stat status {};
  if (::fstat(fd, &status) != 0) return identity;
  identity.device = status.st_dev;
  identity.inode = status.st_ino;
  if ((status.st_mode & S_IFMT) == 0) {  // the anonymous inode has no file type
    identity.anonymous = anonymous_identity(fd);
    identity.known = identity.anonymous != 0;
  } else {
    identity.known = true;
  }
  return identity;
}

bool FileIdentity::same_as(const FileIdentity& other) const noexcept {
  return known && other.known && device == other.device && inode == other.inode &&
         anonymous == other.anonymous;
}

Ledger::~Ledger() {
  for (Chunk* chunk = &first_; chunk != nullptr;) {
    for (Slot& slot : chunk->slots) {
      if (const int fd = slot.fd.load(std::memory_order_relaxed); fd >= 0) ::close(fd);
    }
    Chunk* const next = chunk->next.load(std::memory_order_relaxed);
    if (chunk != &first_) delete chunk;
    chunk = next;
  }
}

Ledger::Slot& Ledger::free_slot_locked() {
  for (Chunk* chunk = &first_;;) {
    for (Slot& slot : chunk->slots) {
      if (slot.fd.load(std::memory_order_relaxed) < 0) return slot;
    }
    if (chunk->next.load(std::memory_order_relaxed) == nullptr) {
      chunk->next.store(new Chunk, std::memory_order_release);
    }
    chunk = chunk->next.load(std::memory_order_relaxed);
  }
}

int Ledger::add(UniqueFd fd) {
  if (!fd) return -1;
  const MutexLock lock(mutex_);
  Slot& slot = free_slot_locked();
  slot.identity = FileIdentity::of(fd.get());
  slot.fd.store(fd.get(), std::memory_order_release);  // (A)
  return fd.release();
}

void Ledger::close(int fd) noexcept {
  if (fd < 0) return;
  const MutexLock lock(mutex_);
  for (Chunk* chunk = &first_; chunk != nullptr;
       chunk = chunk->next.load(std::memory_order_relaxed)) {
    for (Slot& slot : chunk->slots) {
      if (slot.fd.load(std::memory_order_relaxed) != fd) continue;
      slot.fd.store(-1, std::memory_order_release);  // before the number can be used again
      ::close(fd);
      return;
    }
  }
}

void Ledger::close_inherited() noexcept {
  for (Chunk* chunk = &first_; chunk != nullptr;
       chunk = chunk->next.load(std::memory_order_acquire)) {
    for (Slot& slot : chunk->slots) {
      const int fd = slot.fd.load(std::memory_order_acquire);  // (B)
      if (fd < 0) continue;
      if (slot.identity.same_as(FileIdentity::of(fd))) ::close(fd);
    }
  }
}

}  // namespace tandem::wd::detail
