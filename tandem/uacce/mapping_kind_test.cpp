// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/mapping_kind.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <string>

#include "tandem/base/mapping.hpp"

namespace tandem::uacce::detail {
namespace {

constexpr std::string_view kMounts =
    "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
    "28 27 0:25 / /run rw - tmpfs tmpfs rw\n"
    "29 27 0:40 / /mnt/far rw,nosuid - nfs4 server:/x rw\n"
    "30 27 0:41 / /mnt/fuse rw - fuse.sshfs x rw\n"
    "31 27 0:42 / /mnt/shared rw - 9p host rw\n"
    "32 27 0:43 / /mnt/vfs rw - virtiofs host rw\n"
    "33 27 7:3 / /snap/x ro - squashfs /dev/loop3 ro\n"
    "34 27 0:50 / /data rw - btrfs /dev/sda2 rw\n"
    "35 27 0:51 / /image rw - btrfs /dev/loop4 rw\n"
    "36 27 0:52 / /merged rw - overlay overlay rw,lowerdir=/a\n"
    "37 27 43:1 / /net rw - ext4 /dev/nbd1 rw\n"
    "38 24 0:6 / /dev rw - devtmpfs devtmpfs rw\n"
    "broken line\n";

MappingKind kind_of(std::string_view mounts, std::uint32_t major, std::uint32_t minor) {
  std::unordered_map<std::uint64_t, MappingKind> kinds;
  MappingClassifier::parse(mounts, kinds);
  const auto found = kinds.find(MappingClassifier::key(major, minor));
  return found == kinds.end() ? MappingKind::kMayBlock : found->second;
}

TEST(MountTable, LocalFileSystemsAreAccepted) {
  EXPECT_EQ(kind_of(kMounts, 254, 0), MappingKind::kLocalFile);
  EXPECT_EQ(kind_of(kMounts, 0, 50), MappingKind::kLocalFile);
  EXPECT_EQ(kind_of(kMounts, 0, 25), MappingKind::kSharedMemory);
}

TEST(MountTable, WhatMayWaitForSomebodyElseIsNot) {
  for (const std::uint32_t minor : {40u, 41u, 42u, 43u, 6u}) {
    EXPECT_EQ(kind_of(kMounts, 0, minor), MappingKind::kMayBlock) << minor;
  }
}

TEST(MountTable, LocalFileSystemsOnForeignBlockDevicesAreNot) {
  EXPECT_EQ(kind_of(kMounts, 7, 3), MappingKind::kMayBlock);
  EXPECT_EQ(kind_of(kMounts, 0, 51), MappingKind::kMayBlock);
  EXPECT_EQ(kind_of(kMounts, 43, 1), MappingKind::kMayBlock);
}

TEST(MountTable, OverlayIsAcceptedAsTheRootOnly) {
  EXPECT_EQ(kind_of(kMounts, 0, 52), MappingKind::kMayBlock);
  EXPECT_EQ(kind_of("1 0 0:60 / / rw - overlay overlay rw,lowerdir=/a\n", 0, 60),
            MappingKind::kLocalFile);
}

TEST(MountTable, UnknownDeviceNumbersAreNotAccepted) {
  EXPECT_EQ(kind_of(kMounts, 9, 9), MappingKind::kMayBlock);
}

TEST(MappingClassifier, KnowsAnonymousMemoryAndMemfds) {
  MappingClassifier classifier;
  EXPECT_EQ(classifier.classify(Vma{}), MappingKind::kAnonymous);
  const auto fd = make_sealed_memfd("kind-test", kPageSize);
  struct stat status {};
  ASSERT_EQ(::fstat(fd->get(), &status), 0);
  Vma vma;
  vma.inode = status.st_ino;
  vma.device_major = major(status.st_dev);
  vma.device_minor = minor(status.st_dev);
  EXPECT_EQ(classifier.classify(vma), MappingKind::kSharedMemory);
  vma.device_major = 4095;
  EXPECT_EQ(classifier.classify(vma), MappingKind::kMayBlock);
}

Vma file_of_device(dev_t device) {
  Vma vma;
  vma.inode = 1;
  vma.device_major = major(device);
  vma.device_minor = minor(device);
  return vma;
}

/// Whether this process sees `directory` as its root from now on, with /proc, but no mount of it.
bool change_root(const std::string& directory) {
  const std::string proc = directory + "/proc";
  return ::unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 &&
         ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("/proc", proc.c_str(), nullptr, MS_BIND | MS_REC, nullptr) == 0 &&
         ::chroot(directory.c_str()) == 0 && ::chdir("/") == 0;
}

TEST(MappingClassifier, AcceptsARootThatIsNoMount) {
  enum { kAccepted, kRefused, kCannot };
  std::array<char, 32> name{"./tandem-root-XXXXXX"};
  ASSERT_NE(::mkdtemp(name.data()), nullptr);
  const std::string directory = name.data();
  ASSERT_EQ(::mkdir((directory + "/proc").c_str(), 0700), 0);
  struct stat status {};
  ASSERT_EQ(::stat(name.data(), &status), 0);
  const bool local =
      MappingClassifier().classify(file_of_device(status.st_dev)) != MappingKind::kMayBlock;
  const pid_t child = ::fork();
  if (child == 0) {
    if (!change_root(directory)) ::_exit(kCannot);
    const MappingKind kind = MappingClassifier().classify(file_of_device(status.st_dev));
    ::_exit(kind == MappingKind::kLocalFile ? kAccepted : kRefused);
  }
  int outcome = 0;
  ASSERT_EQ(::waitpid(child, &outcome, 0), child);
  ::rmdir((directory + "/proc").c_str());
  ::rmdir(directory.c_str());
  if (!local) GTEST_SKIP() << "the working directory is not on a local file system";
  if (WEXITSTATUS(outcome) == kCannot) GTEST_SKIP() << "no namespaces to change the root in";
  EXPECT_EQ(WEXITSTATUS(outcome), kAccepted);
}

}  // namespace
}  // namespace tandem::uacce::detail
