// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/mapping_kind.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <string>
#include <vector>

namespace tandem::uacce::detail {
namespace {

constexpr std::array<std::string_view, 9> kLocalFileSystems = {
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "squashfs", "erofs"};
constexpr std::array<std::uint32_t, 7> kLocalMagics = {
    EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,    F2FS_SUPER_MAGIC,
    SQUASHFS_MAGIC,   TMPFS_MAGIC,     OVERLAYFS_SUPER_MAGIC};
constexpr std::array<std::string_view, 3> kMemoryFileSystems = {"tmpfs", "ramfs", "hugetlbfs"};
// Block devices whose data may come from a FUSE file or over a network: loop, nbd, drbd. Those with
// dynamic numbers are known by the name of the mount's source, below.
constexpr std::array<std::uint32_t, 3> kRemoteBlockMajors = {7, 43, 147};

template <class List, class T>
bool contains(const List& list, const T& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

std::vector<std::string_view> split(std::string_view line) {
  std::vector<std::string_view> words;
  while (!line.empty()) {
    const auto space = std::min(line.find(' '), line.size());
    words.push_back(line.substr(0, space));
    line.remove_prefix(std::min(space + 1, line.size()));
  }
  return words;
}

bool parse_device(std::string_view word, std::uint32_t& device_major, std::uint32_t& device_minor) {
  const char* const end = word.data() + word.size();
  const auto first = std::from_chars(word.data(), end, device_major, 10);
  if (first.ec != std::errc{} || first.ptr == end || *first.ptr != ':') return false;
  const auto second = std::from_chars(first.ptr + 1, end, device_minor, 10);
  return second.ec == std::errc{} && second.ptr == end;
}

/// Of a mount of `type` from `source` on `mount_point`.
MappingKind kind_of_mount(std::string_view type, std::string_view source,
                          std::string_view mount_point, std::uint32_t device_major) {
  if (contains(kMemoryFileSystems, type)) return MappingKind::kSharedMemory;
  if (type == "overlay") {
    return mount_point == "/" ? MappingKind::kLocalFile : MappingKind::kMayBlock;
  }
  if (!contains(kLocalFileSystems, type)) return MappingKind::kMayBlock;
  // btrfs and zfs show an anonymous device number; the source still names the block device.
  const bool remote = contains(kRemoteBlockMajors, device_major) ||
                      source.starts_with("/dev/loop") || source.starts_with("/dev/nbd") ||
                      source.starts_with("/dev/rbd") || source.starts_with("/dev/drbd");
  return remote ? MappingKind::kMayBlock : MappingKind::kLocalFile;
}

/// What chroot() made the root is listed only if it is a mount of its own.
void add_root(std::unordered_map<std::uint64_t, MappingKind>& kinds) {
  struct stat root {};
  struct statfs file_system {};
  if (::stat("/", &root) != 0 || ::statfs("/", &file_system) != 0) return;
  if (!contains(kLocalMagics, static_cast<std::uint32_t>(file_system.f_type))) return;
  kinds.try_emplace(MappingClassifier::key(major(root.st_dev), minor(root.st_dev)),
                    MappingKind::kLocalFile);
}

std::uint64_t device_of_memfd(unsigned flags) {
  const UniqueFd fd(::memfd_create("tandem-probe", MFD_CLOEXEC | flags));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) return 0;
  return MappingClassifier::key(major(status.st_dev), minor(status.st_dev));
}

std::string read_all(int fd) {
  std::string text;
  char buffer[16384];
  off_t offset = 0;
  while (true) {
    const ssize_t got = ::pread(fd, buffer, sizeof buffer, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(buffer, static_cast<std::size_t>(got));
    offset += got;
  }
}

}  // namespace

void MappingClassifier::parse(std::string_view mountinfo,
                              std::unordered_map<std::uint64_t, MappingKind>& kinds) {
  kinds.clear();
  while (!mountinfo.empty()) {
    const auto newline = std::min(mountinfo.find('\n'), mountinfo.size());
    const auto words = split(mountinfo.substr(0, newline));
    mountinfo.remove_prefix(std::min(newline + 1, mountinfo.size()));
    // id, parent, major:minor, root, mount point, options, optional fields…, "-", type, source, …
    const auto dash = std::find(words.begin(), words.end(), "-");
    std::uint32_t device_major = 0;
    std::uint32_t device_minor = 0;
    if (words.size() < 6 || words.end() - dash < 3 ||
        !parse_device(words[2], device_major, device_minor)) {
      continue;
    }
    const MappingKind kind = kind_of_mount(dash[1], dash[2], words[4], device_major);
    // Of several mounts of one file system the one that says most counts (an overlay at "/").
    const auto [at, added] = kinds.try_emplace(key(device_major, device_minor), kind);
    if (!added && at->second == MappingKind::kMayBlock) at->second = kind;
  }
}

MappingClassifier::MappingClassifier()
    : mountinfo_(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)),
      internal_tmpfs_(device_of_memfd(0)),
      internal_hugetlbfs_(device_of_memfd(MFD_HUGETLB)) {}

void MappingClassifier::refresh_if_changed_locked() {
  if (!mountinfo_) return;
  pollfd poll{mountinfo_.get(), POLLPRI, 0};
  const bool changed = ::poll(&poll, 1, 0) > 0 && (poll.revents & (POLLERR | POLLPRI)) != 0;
  if (loaded_ && !changed) return;
  parse(read_all(mountinfo_.get()), mounts_);
  add_root(mounts_);
  loaded_ = true;
}

MappingKind MappingClassifier::classify(const Vma& vma) {
  if (vma.anonymous()) return MappingKind::kAnonymous;
  const std::uint64_t device = key(vma.device_major, vma.device_minor);
  if (device != 0 && (device == internal_tmpfs_ || device == internal_hugetlbfs_)) {
    return MappingKind::kSharedMemory;
  }
  // An anonymous device number is reused after an unmount, perhaps by a FUSE mount elsewhere; so
  // what is known is trusted only while the kernel reports no change of our mounts.
  const MutexLock lock(mutex_);
  refresh_if_changed_locked();
  const auto found = mounts_.find(device);
  return found == mounts_.end() ? MappingKind::kMayBlock : found->second;
}

}  // namespace tandem::uacce::detail
