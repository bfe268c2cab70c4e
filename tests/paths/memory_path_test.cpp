// SPDX-License-Identifier: Apache-2.0
/// What engines may reach, and what bad pointers come to: the table of mappings.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <vector>

#include "tests/paths/path_fixture.hpp"

namespace tandem::paths {
namespace {

class MemoryPath : public Path {};
TANDEM_ALL_PATHS(MemoryPath);

constexpr std::size_t kPage = 4096;
std::uint64_t address(const void* pointer) { return reinterpret_cast<std::uint64_t>(pointer); }

TEST_P(MemoryPath, CopyFillCompareAndCrcDoWhatTheyName) {
  const auto from = buffer(100'000);
  const auto to = buffer(100'000);
  pattern(from);
  auto done = run(make(WD_OP_COPY, from, to));
  EXPECT_EQ(done.status, TANDEM_STATUS_OK);
  EXPECT_EQ(done.done, 100'000u);
  EXPECT_EQ(std::memcmp(from.data(), to.data(), from.size()), 0);

  to[77'777] ^= std::byte{1};
  done = run(make(WD_OP_COMPARE, from, to));
  EXPECT_EQ(done.status, TANDEM_STATUS_OK);
  EXPECT_EQ(done.result, 77'777u);

  std::memcpy(from.data(), "123456789", 9);
  done = run(make(WD_OP_CRC32C, from.first(9)));
  EXPECT_EQ(done.result, 0xe3069283u);

  done = run(make(WD_OP_FILL, {}, to.first(19), 0x0807060504030201));
  EXPECT_EQ(done.status, TANDEM_STATUS_OK);
  EXPECT_EQ(to[0], std::byte{1});
  EXPECT_EQ(to[18], std::byte{3});
}

TEST_P(MemoryPath, OperandsOfBothKindsMix) {
  const auto from = buffer(200'000);
  const auto to = other_buffer(200'000);
  pattern(from);
  EXPECT_EQ(run(make(WD_OP_COPY, from, to)).status, TANDEM_STATUS_OK);
  const auto done = run(make(WD_OP_COMPARE, from, to));
  EXPECT_EQ(done.status, TANDEM_STATUS_OK);
  EXPECT_EQ(done.result, from.size());
}

TEST_P(MemoryPath, EveryLengthAcrossAPageBorderIsExact) {
  const auto from = buffer(3 * kPage);
  const auto to = buffer(3 * kPage);
  pattern(from);
  for (const std::size_t length : {0u, 1u, 63u, 64u, 65u, 4095u, 4096u, 4097u, 8191u}) {
    std::memset(to.data(), 0xee, to.size());
    const auto done = run(make(WD_OP_COPY, from.subspan(5, length), to.subspan(9, length)));
    ASSERT_EQ(done.status, TANDEM_STATUS_OK) << length;
    ASSERT_EQ(done.done, length);
    EXPECT_EQ(std::memcmp(from.data() + 5, to.data() + 9, length), 0);
    EXPECT_EQ(to[8], std::byte{0xee});
    EXPECT_EQ(to[9 + length], std::byte{0xee});
  }
}

TEST_P(MemoryPath, UnmappedPointersFaultAtTheirAddress) {
  const auto good = buffer(kPage);
  const auto bad = hole(kPage);
  for (const auto& request : {make(WD_OP_COPY, bad, good), make(WD_OP_COPY, good, bad)}) {
    const auto done = run(request);
    EXPECT_EQ(done.status, TANDEM_STATUS_FAULT);
    EXPECT_EQ(done.fault_address, address(bad.data()));
    EXPECT_EQ(done.done, 0u);
  }
  EXPECT_EQ(run(make(WD_OP_COPY, good, good)).status, TANDEM_STATUS_OK) << "the queue lives on";
}

TEST_P(MemoryPath, NullFaults) {
  const auto good = buffer(64);
  const auto done = run(make(WD_OP_COPY, {static_cast<std::byte*>(nullptr), 64}, good));
  EXPECT_EQ(done.status, TANDEM_STATUS_FAULT);
  EXPECT_EQ(done.fault_address, 0u);
}

TEST_P(MemoryPath, HalfValidBuffersSayHowFarTheyWent) {
  // Not a hole: another thread of this process might map something there meanwhile.
  auto* at = static_cast<std::byte*>(
      ::mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  std::memset(at, 1, kPage);
  ASSERT_EQ(::mprotect(at + kPage, kPage, PROT_NONE), 0);
  const auto good = buffer(2 * kPage);
  auto done = run(make(WD_OP_COPY, {at, 2 * kPage}, good));
  EXPECT_EQ(done.status, TANDEM_STATUS_FAULT);
  EXPECT_EQ(done.fault_address, address(at + kPage));
  EXPECT_EQ(done.done, kPage);
  done = run(make(WD_OP_COPY, good, {at, 2 * kPage}));
  EXPECT_EQ(done.status, TANDEM_STATUS_FAULT);
  EXPECT_EQ(done.fault_address, address(at + kPage));
  EXPECT_EQ(done.done, kPage);
}

TEST_P(MemoryPath, ReadOnlyOutputFaultsAndStaysAsItWas) {
  auto* at = static_cast<std::byte*>(
      ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  std::memset(at, 0x5a, kPage);
  ASSERT_EQ(::mprotect(at, kPage, PROT_READ), 0);
  const auto good = buffer(kPage);
  pattern(good);
  const auto done = run(make(WD_OP_COPY, good, {at, kPage}));
  EXPECT_EQ(done.status, TANDEM_STATUS_FAULT);
  EXPECT_EQ(done.fault_address, address(at));
  EXPECT_EQ(at[0], std::byte{0x5a});
  EXPECT_EQ(at[kPage - 1], std::byte{0x5a});
  EXPECT_EQ(run(make(WD_OP_COPY, {at, kPage}, good)).status, TANDEM_STATUS_OK) << "reading is fine";
}

TEST_P(MemoryPath, MprotectBetweenTwoSubmissionsMakesTheSecondFault) {
  const auto target = buffer(kPage);
  const auto from = buffer(kPage);
  EXPECT_EQ(run(make(WD_OP_COPY, from, target)).status, TANDEM_STATUS_OK);
  ASSERT_EQ(::mprotect(target.data(), kPage, PROT_NONE), 0);
  for (const auto& request : {make(WD_OP_COPY, from, target), make(WD_OP_COPY, target, from)}) {
    const auto done = run(request);
    // Reserved memory is the device's until it is released: protection here does not change that.
    EXPECT_EQ(done.status, reserved() ? TANDEM_STATUS_OK : TANDEM_STATUS_FAULT);
    if (!reserved()) {
      EXPECT_EQ(done.fault_address, address(target.data()));
    }
  }
  ASSERT_EQ(::mprotect(target.data(), kPage, PROT_READ | PROT_WRITE), 0);
  EXPECT_EQ(run(make(WD_OP_COPY, from, target)).status, TANDEM_STATUS_OK);
}

TEST_P(MemoryPath, UnmapBetweenTwoSubmissions) {
  const auto target = buffer(kPage);
  const auto from = buffer(kPage);
  EXPECT_EQ(run(make(WD_OP_COPY, target, from)).status, TANDEM_STATUS_OK);
  ASSERT_EQ(::munmap(target.data(), kPage), 0);
  const auto done = run(make(WD_OP_COPY, target, from));
  EXPECT_EQ(done.status, reserved() ? TANDEM_STATUS_OK : TANDEM_STATUS_FAULT);
}

TEST_P(MemoryPath, ANewMappingAtTheSameAddressIsSeenNotTheOldOne) {
  const auto target = buffer(kPage);
  const auto from = buffer(kPage);
  pattern(target, 3);
  EXPECT_EQ(run(make(WD_OP_COPY, target, from)).status, TANDEM_STATUS_OK);
  void* fresh = ::mmap(target.data(), kPage, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  ASSERT_EQ(fresh, target.data());
  std::memset(fresh, 0x77, kPage);
  ASSERT_EQ(run(make(WD_OP_COPY, target, from)).status, TANDEM_STATUS_OK);
  // Reserved memory: the device still reaches the same object, never another.
  EXPECT_EQ(from[100] == std::byte{0x77}, !reserved());
}

TEST_P(MemoryPath, MremapMovesWhatTheDeviceSees) {
  if (reserved()) return;  // the same object by definition; covered above
  const auto target = buffer(2 * kPage);
  const auto from = buffer(2 * kPage);
  pattern(from, 9);
  EXPECT_EQ(run(make(WD_OP_COPY, from, target)).status, TANDEM_STATUS_OK);
  void* moved = ::mremap(target.data(), 2 * kPage, 4 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED,
                         ::mmap(nullptr, 4 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(moved, MAP_FAILED);
  EXPECT_EQ(run(make(WD_OP_COPY, target, from)).status, TANDEM_STATUS_FAULT);
  const auto done = run(make(WD_OP_COMPARE, from, {static_cast<std::byte*>(moved), 2 * kPage}));
  EXPECT_EQ(done.status, TANDEM_STATUS_OK);
  EXPECT_EQ(done.result, 2 * kPage);
}

TEST_P(MemoryPath, LengthsThatWrapAreRefused) {
  const auto good = buffer(kPage);
  for (const std::uint64_t bad :
       {~std::uint64_t{0} - 63, ~std::uint64_t{0} - 4095, std::uint64_t{1} << 63,
        std::uint64_t{0xffff800000000000}, (std::uint64_t{1} << 47) - 8}) {
    auto request = make(WD_OP_COPY, good, good);
    request.src = reinterpret_cast<void*>(bad);
    const auto done = run(request);
    EXPECT_TRUE(done.status == TANDEM_STATUS_BAD_RANGE || done.status == TANDEM_STATUS_FAULT)
        << std::hex << bad << " gave status " << done.status;
  }
}

TEST_P(MemoryPath, StackGlobalsReadOnlyDataAndFilesWork) {
  static std::byte global[kPage];
  static const char kConstant[] = "in the executable's read-only data";
  std::byte local[300];
  std::memset(local, 9, sizeof local);
  EXPECT_EQ(run(make(WD_OP_COPY, local, {global, 300})).status, TANDEM_STATUS_OK);
  EXPECT_EQ(global[299], std::byte{9});
  const auto to = buffer(sizeof kConstant);
  const std::span constant(reinterpret_cast<const std::byte*>(kConstant), sizeof kConstant);
  EXPECT_EQ(run(make(WD_OP_COPY, constant, to)).status, TANDEM_STATUS_OK);
  EXPECT_STREQ(reinterpret_cast<const char*>(to.data()), kConstant);

  const int self = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  for (const int flags : {MAP_PRIVATE, MAP_SHARED}) {
    auto* file = static_cast<std::byte*>(::mmap(nullptr, kPage, PROT_READ, flags, self, 0));
    ASSERT_NE(file, MAP_FAILED);
    const auto copy = buffer(4);
    EXPECT_EQ(run(make(WD_OP_COPY, {file, 4}, copy)).status, TANDEM_STATUS_OK);
    EXPECT_EQ(std::memcmp(copy.data(), "\177ELF", 4), 0);
  }
  ::close(self);
}

TEST_P(MemoryPath, AMemfdOfTheClientsOwnWorksBothWays) {
  const int fd = ::memfd_create("client", MFD_CLOEXEC);
  ASSERT_EQ(::ftruncate(fd, kPage), 0);
  auto* shared =
      static_cast<std::byte*>(::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  const auto from = buffer(kPage);
  pattern(from);
  EXPECT_EQ(run(make(WD_OP_COPY, from, {shared, kPage})).status, TANDEM_STATUS_OK);
  EXPECT_EQ(std::memcmp(shared, from.data(), kPage), 0);
  ::close(fd);
}

TEST_P(MemoryPath, BeyondTheEndOfAMappedFileFaults) {
  const int fd = ::memfd_create("short", MFD_CLOEXEC);
  ASSERT_EQ(::ftruncate(fd, kPage), 0);
  auto* shared = static_cast<std::byte*>(
      ::mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  const auto to = buffer(2 * kPage);
  const auto done = run(make(WD_OP_COPY, {shared, 2 * kPage}, to));
  EXPECT_EQ(done.status, TANDEM_STATUS_FAULT);
  EXPECT_EQ(done.fault_address, address(shared + kPage));
  EXPECT_EQ(done.done, kPage);
  ::close(fd);
}

TEST_P(MemoryPath, ReleasedReservedMemoryIsOutOfReach) {
  if (!reserved()) return;
  const auto gone = buffer(kPage);
  const auto to = buffer(kPage);
  EXPECT_EQ(run(make(WD_OP_COPY, gone, to)).status, TANDEM_STATUS_OK);
  ASSERT_EQ(wd_release_memory(&queue_, gone.data()), 0);
  EXPECT_EQ(run(make(WD_OP_COPY, gone, to)).status, TANDEM_STATUS_FAULT);
}

TEST_P(MemoryPath, UnknownOpcodesAndReservedBitsAreRefused) {
  const auto good = buffer(kPage);
  EXPECT_EQ(run(make(0)).status, TANDEM_STATUS_UNKNOWN_OPCODE);
  EXPECT_EQ(run(make(0x0fff)).status, TANDEM_STATUS_UNKNOWN_OPCODE);
  EXPECT_EQ(run(make(WD_OP_GZIP, good, good)).status, TANDEM_STATUS_UNKNOWN_OPCODE)
      << "another device's operation";
  auto request = make(WD_OP_COPY, good, good);
  request.flags = 0x8000;
  EXPECT_EQ(run(request).status, TANDEM_STATUS_BAD_DESCRIPTOR);
}

TEST_P(MemoryPath, EveryRequestComesBackOnceInOrder) {
  constexpr unsigned kRounds = 20'000;
  std::vector<wd_request> requests(128, make(WD_OP_NOP));
  unsigned sent = 0;
  unsigned received = 0;
  while (received < kRounds) {
    while (sent < kRounds && sent - received < requests.size()) {
      auto& request = requests[sent % requests.size()];
      request.user = reinterpret_cast<void*>(static_cast<std::uintptr_t>(sent));
      ASSERT_EQ(wd_send(&queue_, &request), 0);
      ++sent;
    }
    wd_request* back = nullptr;
    ASSERT_EQ(wd_recv_sync(&queue_, &back), 1);
    ASSERT_EQ(reinterpret_cast<std::uintptr_t>(back->user), received);
    ++received;
  }
  EXPECT_EQ(wd_in_flight(&queue_), 0u);
}

TEST_P(MemoryPath, BatchesComeBackOnceInOrder) {
  constexpr unsigned kRounds = 2'000;
  std::vector<wd_request> requests(96, make(WD_OP_NOP));
  std::vector<wd_request*> pointers;
  for (auto& request : requests) pointers.push_back(&request);
  wd_request* back[64];
  for (unsigned round = 0; round < kRounds; ++round) {
    ASSERT_EQ(wd_send_batch(&queue_, pointers.data(), 96), 96);
    for (unsigned received = 0; received < 96;) {
      const int got = wd_recv_batch(&queue_, back, 64);
      ASSERT_TRUE(got > 0 || got == -EAGAIN) << wd_strerror(got);
      for (int i = 0; i < got; ++i)
        ASSERT_EQ(back[i], pointers[received + static_cast<unsigned>(i)]);
      if (got > 0) received += static_cast<unsigned>(got);
    }
  }
  EXPECT_EQ(wd_recv_batch(&queue_, back, 64), -EAGAIN);
  EXPECT_EQ(wd_recv_batch(&queue_, back, 0), -EINVAL);
}

TEST_P(MemoryPath, AForkedChildGoesOnWithTheSameQueueAndTheParentToo) {
#if defined(__SANITIZE_THREAD__)
  if (path() == WD_PATH_EMBEDDED) {
    GTEST_SKIP() << "ThreadSanitizer cannot start threads in a child of a process with threads";
  }
#endif
  const auto from = buffer(kPage);
  const auto to = buffer(kPage);
  EXPECT_EQ(run(make(WD_OP_COPY, from, to)).status, TANDEM_STATUS_OK);
  const pid_t child = ::fork();
  if (child == 0) {
    std::byte a[64] = {}, b[64] = {};
    a[3] = std::byte{42};
    wd_request request = make(WD_OP_COPY, a, b);
    wd_request* back = nullptr;
    const bool good = wd_send(&queue_, &request) == 0 && wd_recv_sync(&queue_, &back) == 1 &&
                      request.status == TANDEM_STATUS_OK && b[3] == std::byte{42};
    ::_exit(good ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(run(make(WD_OP_COPY, from, to)).status, TANDEM_STATUS_OK);
}

}  // namespace
}  // namespace tandem::paths
