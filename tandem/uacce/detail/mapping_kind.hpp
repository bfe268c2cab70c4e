// SPDX-License-Identifier: Apache-2.0
/// Whether touching a mapping could block for ever.
///
/// A process may map a file whose server never answers; reading its memory then hangs in the
/// kernel. So only kinds that cannot are accepted, by the device number of the file against this
/// process's own view of mounts:
///
///   accepted  anonymous memory ([heap], [stack], [vdso] too); memfds, shared anonymous and
///             System V memory (the kernel's internal tmpfs and hugetlbfs); files of local file
///             systems: ext2/3/4, xfs, btrfs, f2fs, zfs, tmpfs, ramfs, hugetlbfs, squashfs, erofs;
///             overlay only when it is this process's root, whose stall would stall this process
///             anyway; the file system that chroot() put the root on, where it is a local one
///   not       everything else: an unknown device number, FUSE, network and shared-directory file
///             systems, devices, other overlays, and file systems on loop or network block devices,
///             behind which there may be any of those
///
/// Not visible here: memory managed by userfaultfd. Reading it through a mem descriptor fails with
/// EIO, which AddressKind reports as "needs staging". Nor a device whose node is on one of these
/// file systems instead of devtmpfs: its mapping has the device number of the node's file system.
/// Who makes such nodes is privileged, and trusted.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>

#include "tandem/base/mutex.hpp"
#include "tandem/base/unique_fd.hpp"
#include "tandem/uacce/detail/vma.hpp"

namespace tandem::uacce::detail {

enum class MappingKind : std::uint8_t {
  kAnonymous,
  kSharedMemory,  ///< memfd, MAP_SHARED | MAP_ANONYMOUS, tmpfs
  kLocalFile,
  kMayBlock,
};

/// Keeps what /proc/self/mountinfo says by device number; reads it again when the kernel reports a
/// change. Thread safety: any thread.
class MappingClassifier {
 public:
  MappingClassifier();
  MappingKind classify(const Vma& vma);

  /// The kind of device number major:minor if `mountinfo` lists it, one line a mount.
  static void parse(std::string_view mountinfo,
                    std::unordered_map<std::uint64_t, MappingKind>& kinds);
  static constexpr std::uint64_t key(std::uint32_t device_major, std::uint32_t device_minor) {
    return std::uint64_t{device_major} << 32 | device_minor;
  }

 private:
  void refresh_if_changed_locked() TANDEM_REQUIRES(mutex_);

  Mutex mutex_;
  UniqueFd mountinfo_ TANDEM_GUARDED_BY(mutex_);
  std::unordered_map<std::uint64_t, MappingKind> mounts_ TANDEM_GUARDED_BY(mutex_);
  bool loaded_ TANDEM_GUARDED_BY(mutex_) = false;
  std::uint64_t internal_tmpfs_ = 0;      // constant after construction
  std::uint64_t internal_hugetlbfs_ = 0;  // likewise; 0: none
};

}  // namespace tandem::uacce::detail
