// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/vma.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <thread>

#include "tandem/base/mapping.hpp"
#include "tandem/base/test_sandbox.hpp"
#include "tandem/base/unique_fd.hpp"
#include "tandem/uacce/detail/test_process.hpp"

namespace tandem::uacce::detail {
namespace {

TEST(MapsLine, TellsRangePermissionOffsetAndFile) {
  Vma vma;
  ASSERT_TRUE(parse_maps_line("7f00a000-7f00c000 r-xs 00001000 fe:0a 1234   /usr/lib/x y", vma));
  EXPECT_EQ(vma.start, 0x7f00a000u);
  EXPECT_EQ(vma.end, 0x7f00c000u);
  EXPECT_TRUE(vma.readable && !vma.writable && vma.executable && vma.shared);
  EXPECT_EQ(vma.offset, 0x1000u);
  EXPECT_EQ(vma.device_major, 0xfeu);
  EXPECT_EQ(vma.device_minor, 0x0au);
  EXPECT_EQ(vma.inode, 1234u);
  EXPECT_FALSE(vma.anonymous());
}

TEST(MapsLine, OfAnonymousMemoryHasNoFile) {
  Vma vma;
  ASSERT_TRUE(parse_maps_line("1000-3000 rw-p 00000000 00:00 0 ", vma));
  EXPECT_TRUE(vma.anonymous());
  EXPECT_TRUE(permits(vma, false));
}

TEST(MapsLine, ThatIsMalformedIsRefused) {
  Vma vma;
  for (const char* line : {"", "1000", "1000-", "1000-2000", "1000-2000 rw", "x-y rw-p 0 0:0 0",
                           "2000-1000 rw-p 00000000 00:00 0", "1000-2000 rw-p 00000000 0000 0"}) {
    EXPECT_FALSE(parse_maps_line(line, vma)) << line;
  }
}

class VmaSourceTest : public testing::Test {
 protected:
  const UniqueFd maps_{::open("/proc/self/maps", O_RDONLY | O_CLOEXEC)};
  const VmaSource source_{maps_.get()};
};

TEST_F(VmaSourceTest, FindsTheMappingThatCoversAnAddress) {
  auto fd = make_sealed_memfd("vma-test", 3 * kPageSize);
  ASSERT_TRUE(fd);
  auto mapping = Mapping::shared(fd->get(), 2 * kPageSize, kPageSize);
  ASSERT_TRUE(mapping);
  const auto start = reinterpret_cast<std::uint64_t>(mapping->data());
  const auto vma = source_.covering(start + kPageSize + 5);
  ASSERT_TRUE(vma);
  EXPECT_EQ(vma->start, start);
  EXPECT_EQ(vma->end, start + 2 * kPageSize);
  EXPECT_EQ(vma->offset, kPageSize);
  EXPECT_TRUE(vma->readable && vma->writable && vma->shared);
  struct stat status {};
  ASSERT_EQ(::fstat(fd->get(), &status), 0);
  EXPECT_EQ(vma->inode, status.st_ino);
}

TEST_F(VmaSourceTest, AgreesWithTheMapsFileOnEveryLine) {
  std::ifstream file("/proc/self/maps");
  int lines = 0;
  for (std::string line; std::getline(file, line);) {
    Vma expected;
    ASSERT_TRUE(parse_maps_line(line, expected)) << line;
    // Files, which no allocation of this loop moves.
    if (expected.inode == 0) continue;
    const auto found = source_.covering(expected.start);
    ASSERT_TRUE(found) << line;
    EXPECT_EQ(*found, expected) << line;
    ++lines;
  }
  EXPECT_GT(lines, 3);
}

TEST_F(VmaSourceTest, SaysWhereNothingIs) {
  const auto hole = Mapping::anonymous(3 * kPageSize);
  ASSERT_TRUE(hole);
  const auto start = reinterpret_cast<std::uint64_t>(hole->data());
  ASSERT_EQ(::munmap(hole->data() + kPageSize, kPageSize), 0);
  const auto nothing = source_.covering(start + kPageSize);
  ASSERT_FALSE(nothing);
  EXPECT_EQ(nothing.error().value(), ENOENT);
  const auto next = source_.covering_or_next(start + kPageSize);
  ASSERT_TRUE(next);
  EXPECT_EQ(next->start, start + 2 * kPageSize);
}

TEST_F(VmaSourceTest, ReadsTheTextWhereTheQueryIsMissingOrForbidden) {
  const auto mapping = Mapping::anonymous(kPageSize);
  ASSERT_TRUE(mapping);
  const auto start = reinterpret_cast<std::uint64_t>(mapping->data());
  bool refused = true;
  for (const int error : {ENOTTY, ENOSYS, EPERM}) {
    const VmaSource source(maps_.get());
    std::thread([&] {
      refused &= refuse_system_call(SYS_ioctl, error);
      const auto vma = source.covering(start);
      ASSERT_TRUE(vma) << vma.error().message();
      EXPECT_LE(vma->start, start);
      EXPECT_GT(vma->end, start);
    }).join();
  }
  if (!refused) GTEST_SKIP() << "no seccomp here";
}

TEST(VmaSource, OfADeadProcessSaysSo) {
  ChildProcess child;
  const UniqueFd maps = child.own_file("/proc/self/maps", O_RDONLY);
  const VmaSource source(maps.get());
  ASSERT_TRUE(source.covering_or_next(0));
  child.kill();
  const auto gone = source.covering_or_next(0);
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().value(), ESRCH);
}

}  // namespace
}  // namespace tandem::uacce::detail
