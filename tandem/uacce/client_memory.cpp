// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/client_memory.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <string>
#include <string_view>
#include <utility>

namespace tandem::uacce::detail {

using memory::Fault;
using memory::Outcome;

namespace {

/// An address that no process can map: reading it says EIO while the mm lives, 0 bytes afterwards.
constexpr off_t kNeverMapped = 0x7ffffffffffff000;

constexpr int kMappingsTried = 256;

std::string link_target(int fd) {
  std::array<char, 256> target{};
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t length = ::readlink(link.c_str(), target.data(), target.size());
  if (length <= 0 || static_cast<std::size_t>(length) == target.size()) return {};
  return std::string(target.data(), static_cast<std::size_t>(length));
}

/// "/proc/12" of "/proc/12/mem" when `file` is "/mem"; empty when it is no such name.
std::string process_directory(int fd, std::string_view file) {
  const std::string target = link_target(fd);
  if (!std::string_view(target).ends_with(file)) return {};
  const std::string directory = target.substr(0, target.size() - file.size());
  const auto slash = directory.rfind('/');
  if (slash == std::string::npos || slash + 1 == directory.size()) return {};
  const bool number = directory.find_first_not_of("0123456789", slash + 1) == std::string::npos;
  return number ? directory : std::string{};
}

bool on_procfs(int fd, struct stat& status) {
  struct statfs file_system {};
  return ::fstatfs(fd, &file_system) == 0 && file_system.f_type == PROC_SUPER_MAGIC &&
         ::fstat(fd, &status) == 0;
}

/// Whether a process that `maps` lists has memory behind `mem` where `maps` says so.
bool same_live_mm(int mem, const VmaSource& vmas, MappingClassifier& classifier) {
  int tried = 0;
  for (std::uint64_t at = 0; tried < kMappingsTried;) {
    const auto vma = vmas.covering_or_next(at);
    if (!vma || vma->start >= kUserAddressEnd) return false;
    at = vma->end;
    if (!vma->readable || classifier.classify(*vma) == MappingKind::kMayBlock) continue;
    std::byte probe;
    if (::pread(mem, &probe, 1, static_cast<off_t>(vma->start)) > 0) return true;
    ++tried;
  }
  return false;
}

bool genuine(const MmAccess& access, MappingClassifier& classifier) {
  struct stat mem {};
  struct stat maps {};
  if (!access.mem || !access.maps || !on_procfs(access.mem.get(), mem) ||
      !on_procfs(access.maps.get(), maps) || mem.st_dev != maps.st_dev) {
    return false;
  }
  const int flags = ::fcntl(access.mem.get(), F_GETFL);
  if (flags < 0 || (flags & O_ACCMODE) != O_RDWR || (flags & O_PATH) != 0) return false;
  const std::string process = process_directory(access.mem.get(), "/mem");
  if (process.empty() || process != process_directory(access.maps.get(), "/maps")) return false;
  return same_live_mm(access.mem.get(), VmaSource(access.maps.get()), classifier);
}

}  // namespace

ClientMemory::ClientMemory(MappingClassifier& classifier, bool self, UniqueFd mem, UniqueFd maps)
    : classifier_(classifier),
      self_(self),
      pid_(::getpid()),
      mem_(std::move(mem)),
      maps_(std::move(maps)),
      vmas_(maps_.get()) {}

Result<std::shared_ptr<ClientMemory>> ClientMemory::open(MmAccess access,
                                                         MappingClassifier& classifier) {
  const bool self = access.kind == MmAccess::Kind::kSelf;
  if (self) {
    access.maps.reset(::open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
    access.mem.reset(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
    if (!access.maps) return errno_error(EACCES);
  } else if (!genuine(access, classifier)) {
    return errno_error(EACCES);
  }
  std::shared_ptr<ClientMemory> client(
      new ClientMemory(classifier, self, std::move(access.mem), std::move(access.maps)));
  if (self) {
    const char own = 1;
    char copy = 0;
    iovec to{&copy, 1};
    iovec from{const_cast<char*>(&own), 1};
    client->process_vm_ = ::process_vm_readv(client->pid_, &to, 1, &from, 1, 0) == 1;
    if (!client->process_vm_ && !client->mem_) return errno_error(EACCES);
  }
  return client;
}

bool ClientMemory::may_block(const Vma& vma) {
  return !self_ && classifier_.classify(vma) == MappingKind::kMayBlock;
}

Result<Vma> ClientMemory::usable(std::uint64_t address, bool read, bool write) {
  if (address >= kUserAddressEnd) return errno_error(EFAULT);
  const auto vma = vmas_.covering(address);
  if (!vma || (read && !permits(*vma, false)) || (write && !permits(*vma, true))) {
    return errno_error(EFAULT);
  }
  if (may_block(*vma)) return errno_error(EOPNOTSUPP);
  return vma;
}

std::size_t ClientMemory::transfer(std::uint64_t address, std::byte* bytes, std::size_t length,
                                   bool write) {
  std::size_t done = 0;
  while (done < length) {
    ssize_t moved = 0;
    if (process_vm_) {
      iovec local{bytes + done, length - done};
      iovec remote{reinterpret_cast<void*>(address + done), length - done};
      moved = write ? ::process_vm_writev(pid_, &local, 1, &remote, 1, 0)
                    : ::process_vm_readv(pid_, &local, 1, &remote, 1, 0);
    } else {
      const auto at = static_cast<off_t>(address + done);
      moved = write ? ::pwrite(mem_.get(), bytes + done, length - done, at)
                    : ::pread(mem_.get(), bytes + done, length - done, at);
    }
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) break;
    done += static_cast<std::size_t>(moved);
  }
  return done;
}

Outcome ClientMemory::refused(std::size_t done_bytes) {
  refusals_.fetch_add(1, std::memory_order_relaxed);
  return {done_bytes, Fault::kRefused};
}

Outcome ClientMemory::access(std::uint64_t address, std::byte* bytes, std::size_t length,
                             bool write) {
  const auto running = in_flight_.enter();
  if (!running) return {0, Fault::kRefused};
  std::size_t done = 0;
  while (done < length) {
    std::size_t piece = length - done;
    if (!process_vm_) {
      const auto vma = usable(address + done, !write, write);
      if (!vma) return refused(done);
      piece = std::min<std::size_t>(piece, vma->end - (address + done));
    }
    const std::size_t moved = transfer(address + done, bytes + done, piece, write);
    // A read that hung until its queue was given up has read nothing: nobody may write it out.
    if (InFlight::cancelled()) return {done, Fault::kRefused};
    done += moved;
    if (moved < piece) return refused(done);
  }
  return {done, Fault::kNone};
}

Outcome ClientMemory::read(std::uint64_t address, std::span<std::byte> to) {
  return access(address, to.data(), to.size(), false);
}

Outcome ClientMemory::write(std::uint64_t address, std::span<const std::byte> from) {
  return access(address, const_cast<std::byte*>(from.data()), from.size(), true);
}

AddressKind ClientMemory::classify(std::uint64_t address) {
  const auto running = in_flight_.enter();
  if (!running || address >= kUserAddressEnd) return AddressKind::kUnmapped;
  const auto vma = vmas_.covering(address);
  if (!vma || (!vma->readable && !vma->writable)) return AddressKind::kUnmapped;
  const MappingKind kind = classifier_.classify(*vma);
  if (!self_ && kind == MappingKind::kMayBlock) return AddressKind::kNeedsStaging;
  std::byte probe;
  if (!vma->readable || transfer(address, &probe, 1, false) == 1) return AddressKind::kAccessible;
  // The mapping is there and the page is not to be had: behind the end of a local file there is
  // nothing; otherwise userfaultfd, or a device, has it and the process itself can read it.
  return kind == MappingKind::kLocalFile ? AddressKind::kUnmapped : AddressKind::kNeedsStaging;
}

bool ClientMemory::alive() const {
  if (self_) return true;
  std::byte probe;
  return ::pread(mem_.get(), &probe, 1, kNeverMapped) != 0;
}

}  // namespace tandem::uacce::detail
