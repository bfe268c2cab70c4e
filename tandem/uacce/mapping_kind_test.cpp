// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/mapping_kind.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

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

}  // namespace
}  // namespace tandem::uacce::detail
