// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/client_memory.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tandem/uacce/detail/host.hpp"
#include "tandem/uacce/detail/silent_file.hpp"
#include "tandem/uacce/detail/test_process.hpp"

namespace tandem::uacce::detail {
namespace {

using namespace std::chrono_literals;
using memory::Fault;
using pcie::Iova;

constexpr std::size_t kPage = 4096;

std::uint64_t address_of(const void* pointer) { return reinterpret_cast<std::uint64_t>(pointer); }

/// One mapping of a kind after the other, in a child, as engines see it.
class MappingKinds : public testing::Test {
 protected:
  void SetUp() override {
    auto client = ClientMemory::open(child_.access(), classifier_);
    ASSERT_TRUE(client);
    client_ = std::move(*client);
  }

  long open_in_child(const char* path, int flags) {
    return child_.call(SYS_openat, {static_cast<std::uint64_t>(AT_FDCWD), address_of(path),
                                    static_cast<std::uint64_t>(flags), 0600});
  }
  /// Brings the child's copy of `text` up to date.
  void poke_text(const char* text, std::size_t size) {
    std::vector<std::byte> bytes(size);
    std::memcpy(bytes.data(), text, size);
    child_.poke(address_of(text), bytes);
  }
  void expect_usable(std::uint64_t at, bool writable) {
    std::byte byte{0};
    EXPECT_TRUE(client_->read(at, {&byte, 1}).ok());
    EXPECT_EQ(client_->classify(at), AddressKind::kAccessible);
    if (!writable) return;
    byte = std::byte{0x5e};
    EXPECT_TRUE(client_->write(at, {&byte, 1}).ok());
    EXPECT_EQ(child_.peek(at, 1)[0], byte);
  }
  void expect_needs_staging(std::uint64_t at) {
    std::byte byte{0};
    const auto outcome = client_->read(at, {&byte, 1});
    EXPECT_EQ(outcome.fault, Fault::kRefused);
    EXPECT_EQ(outcome.done_bytes, 0u);
    EXPECT_EQ(client_->classify(at), AddressKind::kNeedsStaging);
  }

  MappingClassifier classifier_;
  ChildProcess child_;
  std::shared_ptr<ClientMemory> client_;
};

TEST_F(MappingKinds, AnonymousMemoryIsUsable) {
  expect_usable(child_.map(kPage, PROT_READ | PROT_WRITE), true);
  static int data = 7;  // an executable's .data
  expect_usable(address_of(&data), true);
  int on_the_stack = 0;
  std::byte byte{0};
  EXPECT_TRUE(client_->read(address_of(&on_the_stack), {&byte, 1}).ok());
  static const char text[] = "rodata";
  expect_usable(address_of(text), false);
}

TEST_F(MappingKinds, SharedMemoryIsUsable) {
  expect_usable(child_.map(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS), true);
  const long fd = child_.call(SYS_memfd_create, {address_of("kinds"), 0});
  ASSERT_GE(fd, 0);
  ASSERT_EQ(child_.call(SYS_ftruncate, {static_cast<std::uint64_t>(fd), kPage}), 0);
  expect_usable(child_.map(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd), true);
  expect_usable(child_.map(kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd), true);
}

TEST_F(MappingKinds, LocalFilesAreUsableUpToTheirEnd) {
  static char path[] = "./tandem-kinds-XXXXXX";
  const UniqueFd file(::mkstemp(path));
  ASSERT_TRUE(file);
  ASSERT_EQ(::ftruncate(file.get(), kPage), 0);
  struct stat status {};
  ASSERT_EQ(::fstat(file.get(), &status), 0);
  poke_text(path, sizeof path);
  const long fd = open_in_child(path, O_RDWR);
  ASSERT_GE(fd, 0);
  const auto shared = child_.map(2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  const auto own = child_.map(2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  ::unlink(path);
  if (client_->classify(shared) == AddressKind::kNeedsStaging) {
    GTEST_SKIP() << "the working directory is not on a local file system";
  }
  expect_usable(shared, true);
  expect_usable(own, true);
  std::byte byte{0};
  EXPECT_EQ(client_->read(shared + kPage, {&byte, 1}).fault, Fault::kRefused);
  EXPECT_EQ(client_->classify(shared + kPage), AddressKind::kUnmapped) << "past the end";
}

TEST_F(MappingKinds, DevicesNeedStaging) {
  struct stat status {};
  ASSERT_EQ(::stat("/dev", &status), 0);
  Vma vma;
  vma.inode = status.st_ino;
  vma.device_major = major(status.st_dev);
  vma.device_minor = minor(status.st_dev);
  if (classifier_.classify(vma) != MappingKind::kMayBlock) {
    GTEST_SKIP() << "/dev is on a file system of files, whose devices look like files";
  }
  const long zero = open_in_child("/dev/zero", O_RDWR);
  ASSERT_GE(zero, 0);
  expect_needs_staging(child_.map(kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero));
  // Mapped shared, /dev/zero is anonymous shared memory.
  expect_usable(child_.map(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, zero), true);
}

TEST_F(MappingKinds, ProcAndSysFilesNeedStaging) {
  static const char* const candidates[] = {"/sys/kernel/btf/vmlinux", "/proc/kpageflags"};
  int mapped = 0;
  for (const char* path : candidates) {
    const long fd = open_in_child(path, O_RDONLY);
    if (fd < 0) continue;
    const long at = child_.call(
        SYS_mmap, {0, kPage, PROT_READ, MAP_PRIVATE, static_cast<std::uint64_t>(fd), 0});
    if (at < 0) continue;
    expect_needs_staging(static_cast<std::uint64_t>(at));
    ++mapped;
  }
  if (mapped == 0) GTEST_SKIP() << "no file of a kernel file system can be mapped here";
}

TEST_F(MappingKinds, UserfaultfdMemoryNeedsStagingAndDoesNotBlock) {
  const long fd = child_.call(SYS_userfaultfd, {O_CLOEXEC | UFFD_USER_MODE_ONLY});
  if (fd < 0) GTEST_SKIP() << "no userfaultfd: " << std::strerror(static_cast<int>(-fd));
  const auto at = child_.map(2 * kPage, PROT_READ | PROT_WRITE);
  child_.fill(at + kPage, kPage, 0x12);
  static uffdio_api api;
  static uffdio_register range;
  api = {};
  api.api = UFFD_API;
  range = {};
  range.range = {at, 2 * kPage};
  range.mode = UFFDIO_REGISTER_MODE_MISSING;
  const auto copy = [&](auto& structure) {
    std::vector<std::byte> bytes(sizeof structure);
    std::memcpy(bytes.data(), &structure, sizeof structure);
    child_.poke(address_of(&structure), bytes);
  };
  copy(api);
  copy(range);
  const auto number = static_cast<std::uint64_t>(fd);
  ASSERT_EQ(child_.call(SYS_ioctl, {number, UFFDIO_API, address_of(&api)}), 0);
  ASSERT_EQ(child_.call(SYS_ioctl, {number, UFFDIO_REGISTER, address_of(&range)}), 0);
  expect_needs_staging(at);
  expect_usable(at + kPage, false);  // a page that is there
}

// ---- A FUSE server that never answers a read ----------------------------------------------------

TEST_F(MappingKinds, AFuseFileNeedsStagingAndDoesNotBlock) {
  static char directory[] = "/tmp/tandem-fuse-XXXXXX";
  ASSERT_NE(::mkdtemp(directory), nullptr);
  static char file[64];
  static char options[128];
  std::snprintf(file, sizeof file, "%s/file", directory);
  poke_text(directory, sizeof directory);
  poke_text(file, sizeof file);
  // A mount of the child's own, which this process does not see.
  const bool apart =
      child_.call(SYS_unshare, {CLONE_NEWNS}) == 0 &&
      child_.call(SYS_mount, {address_of("none"), address_of("/"), 0, MS_REC | MS_PRIVATE, 0}) == 0;
  const long device = open_in_child("/dev/fuse", O_RDWR);
  std::snprintf(options, sizeof options, "fd=%ld,rootmode=40000,user_id=0,group_id=0", device);
  poke_text(options, sizeof options);
  const bool mounted =
      apart && device >= 0 &&
      child_.call(SYS_mount, {address_of("silent"), address_of(directory), address_of("fuse"),
                              MS_NOSUID | MS_NODEV, address_of(options)}) == 0;
  if (!mounted) {
    ::rmdir(directory);
    GTEST_SKIP() << "no FUSE mount in an own namespace (needs root and /dev/fuse)";
  }
  const UniqueFd served = child_.send_descriptor(static_cast<int>(device));
  std::thread server([&] { serve_silently(served.get()); });
  const long fd = open_in_child(file, O_RDONLY);
  EXPECT_GE(fd, 0);
  if (fd >= 0) {
    const auto at = child_.map(kPage, PROT_READ, MAP_PRIVATE, fd);
    expect_needs_staging(at);
  }
  child_.kill();  // takes its namespace and the mount along
  server.join();
  ::rmdir(directory);
}

// ---- Accesses that do not end ------------------------------------------------------------------

/// A page of this process whose first access, the kernel's too, hangs until it is answered.
class HangingPage {
 public:
  explicit HangingPage(SelfProcess& self)
      : fd_(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC))),
        address_(self.map(kPage, PROT_READ | PROT_WRITE)) {
    uffdio_api api{};
    api.api = UFFD_API;
    uffdio_register range{};
    range.range = {address_, kPage};
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    if (!fd_) return;
    TANDEM_CHECK(::ioctl(fd_.get(), UFFDIO_API, &api) == 0);
    TANDEM_CHECK(::ioctl(fd_.get(), UFFDIO_REGISTER, &range) == 0);
  }
  /// Whether it does: false where userfaultfd is not allowed.
  bool hangs() const { return static_cast<bool>(fd_); }
  std::uint64_t address() const { return address_; }
  /// Fills it with zeros. Returns: whether the kernel did so.
  bool answer() {
    uffdio_zeropage page{};
    page.range = {address_, kPage};
    return ::ioctl(fd_.get(), UFFDIO_ZEROPAGE, &page) == 0;
  }

 private:
  const UniqueFd fd_;
  const std::uint64_t address_;
};

TEST(StuckAccess, IsNoticedAndQuarantinesItsPasidOnly) {
  SelfProcess self;
  HangingPage page(self);
  if (!page.hangs()) GTEST_SKIP() << "userfaultfd for kernel accesses needs privilege";
  const auto at = page.address();

  auto host = Host::create();
  ASSERT_TRUE(host);
  auto endpoint = (*host)->add_endpoint();
  ASSERT_TRUE(endpoint);
  auto mm = (*host)->bind(self.access());
  auto other = (*host)->bind(self.access());
  ASSERT_TRUE(mm && other);
  EXPECT_FALSE((*mm)->stuck_for(0ms));
  std::thread engine([&] {
    std::byte byte;
    const auto result = (*endpoint)->space((*mm)->pasid()).read(Iova{at}, {&byte, 1});
    EXPECT_TRUE(result.ok());  // it was let through before the space ended
  });
  while (!(*mm)->stuck_for(20ms)) std::this_thread::yield();
  EXPECT_FALSE((*other)->stuck_for(20ms));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE((*other)->unbind()) << "others end as usual";
  EXPECT_FALSE((*mm)->unbind());
  EXPECT_LT(std::chrono::steady_clock::now() - start, 20s);  // two of them are waited for
  EXPECT_EQ((*host)->quarantined_pasids(), 1u);
  EXPECT_FALSE((*mm)->unbind()) << "and stays so";
  for (int i = 0; i < 300; ++i) {
    const auto next = (*host)->bind({});
    EXPECT_TRUE(next && (*next)->pasid() != (*mm)->pasid());
  }
  EXPECT_TRUE(page.answer());
  engine.join();
  EXPECT_FALSE((*mm)->stuck_for(0ms));
  (*host)->remove_endpoint(**endpoint);
}

TEST(StuckAccess, IsTheLastOfAnOperationWhoseQueueIsDead) {
  SelfProcess self;
  HangingPage page(self);
  if (!page.hangs()) GTEST_SKIP() << "userfaultfd for kernel accesses needs privilege";
  const auto at = page.address();
  const auto beside = self.map(kPage, PROT_READ | PROT_WRITE);

  auto host = Host::create();
  ASSERT_TRUE(host);
  auto endpoint = (*host)->add_endpoint();
  ASSERT_TRUE(endpoint);
  auto mm = (*host)->bind(self.access());
  ASSERT_TRUE(mm);
  std::atomic<std::uint32_t> death{TANDEM_QUEUE_ALIVE};
  std::thread engine([&] {
    auto space = (*endpoint)->space((*mm)->pasid());
    std::byte byte{0x77};
    {
      const InFlight::Operation operation(death);
      EXPECT_TRUE(space.write(Iova{beside}, {&byte, 1}).ok());
      byte = std::byte{0x55};
      const auto hung = space.read(Iova{at}, {&byte, 1});
      EXPECT_FALSE(hung.ok());
      EXPECT_EQ(hung.done_bytes, 0u) << "what was read may not be written elsewhere";
      EXPECT_FALSE(space.write(Iova{beside}, {&byte, 1}).ok());
    }
    EXPECT_TRUE(space.read(Iova{beside}, {&byte, 1}).ok());
    EXPECT_EQ(byte, std::byte{0x77});
  });
  while (!(*mm)->stuck_for(5ms)) std::this_thread::yield();
  death = TANDEM_QUEUE_STUCK;
  EXPECT_TRUE(page.answer());
  engine.join();
  EXPECT_TRUE((*mm)->unbind());
  (*host)->remove_endpoint(**endpoint);
}

TEST(StuckAccess, ThatTheSchedulerCondemnedIsNotWaitedFor) {
  auto host = Host::create();
  ASSERT_TRUE(host);
  const auto mm = (*host)->bind(SelfProcess().access());
  ASSERT_TRUE(mm);
  (*mm)->condemn();
  EXPECT_FALSE((*mm)->unbind());
  EXPECT_EQ((*host)->quarantined_pasids(), 1u);
}

TEST(InFlightAccesses, AreRefusedOnceClosed) {
  InFlight accesses;
  {
    const auto scope = accesses.enter();
    ASSERT_TRUE(scope);
    EXPECT_FALSE(accesses.wait_idle(1ms));
    accesses.close();
    EXPECT_FALSE(accesses.enter());
  }
  EXPECT_TRUE(accesses.wait_idle(0ms));
}

}  // namespace
}  // namespace tandem::uacce::detail
