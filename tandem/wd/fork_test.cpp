// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <optional>
#include <thread>

#include "tandem/wd/detail/fixture.hpp"
#include "tandem/wd/detail/ledger.hpp"
#include "tandem/wd/detail/process.hpp"
#include "tandem/wd/wd.hpp"

namespace tandem::wd::detail {
namespace {

// ThreadSanitizer cannot start threads in a child that was forked from a process with threads.
#if defined(__SANITIZE_THREAD__)
constexpr bool kTsan = true;
constexpr std::array kPaths = {WD_PATH_INLINE};
#else
constexpr bool kTsan = false;
constexpr std::array kPaths = {WD_PATH_INLINE, WD_PATH_EMBEDDED};
#endif

class ForkTest : public WdTest {
 protected:
  /// Runs one request; 0 when it came back fine. For children, which must not use gtest.
  static int works(wd_queue& q) {
    wd_request request = nop(5);
    wd_request* got = nullptr;
    if (wd_send(&q, &request) != 0) return 10;
    if (wd_recv_sync(&q, &got) != 1) return 11;
    return got == &request && got->result == 5 && got->status == TANDEM_STATUS_OK ? 0 : 12;
  }
};

TEST_F(ForkTest, ChildGoesOnWithTheSameQueue) {
  for (const wd_path path : kPaths) {
    wd_queue q = open(path, 16);
    wd_request request = nop();
    run(q, request);
    EXPECT_EQ(in_child([&q] {
                if (const int result = works(q); result != 0) return result;
                wd_stats stats{};
                if (wd_get_stats(&q, &stats) != 0 || stats.rebinds != 1) return 20;
                return q.depth == 16 ? 0 : 21;
              }),
              0);
    run(q, request);
    EXPECT_EQ(request.status, TANDEM_STATUS_OK);
    wd_release_queue(&q);
    behaviour.era.fetch_add(1);
  }
}

TEST_F(ForkTest, ChildsChildGoesOnToo) {
  for (const wd_path path : kPaths) {
    wd_queue q = open(path);
    EXPECT_EQ(in_child([&q] {
                const int inner = in_child([&q] { return works(q); });
                return inner != 0 ? inner : works(q);
              }),
              0);
    EXPECT_EQ(in_child([&q] {
                const int own = works(q);
                return own != 0 ? own : in_child([&q] { return works(q); });
              }),
              0);
    wd_release_queue(&q);
    behaviour.era.fetch_add(1);
  }
}

TEST_F(ForkTest, RawCloneIsNoticed) {
  if (kTsan) GTEST_SKIP() << "ThreadSanitizer takes the parent's threads for the child's";
  wd_queue q = open(WD_PATH_INLINE);
  const auto child =
      static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, 0));
  if (child == 0) ::_exit(works(q));
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(works(q), 0);
  wd_release_queue(&q);
}

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
int use_in_shared_memory(void* argument) {
  auto* const q = static_cast<wd_queue*>(argument);
  wd_request request{};
  request.opcode = WD_OP_NOP;
  wd_request* got = nullptr;
  if (wd_send(q, &request) != 0 || wd_recv_sync(q, &got) != 1) ::_exit(1);
  wd_stats stats{};
  ::_exit(wd_get_stats(q, &stats) == 0 && stats.rebinds == 0 ? 0 : 2);
}

TEST_F(ForkTest, SharedMemoryCloneSharesTheQueue) {
  wd_queue q = open(WD_PATH_INLINE);
  alignas(16) static std::array<char, 256 * 1024> stack;
  const pid_t child = ::clone(&use_in_shared_memory, stack.data() + stack.size(),
                              CLONE_VM | CLONE_VFORK | SIGCHLD, &q);
  ASSERT_GT(child, 0);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  wd_release_queue(&q);
}
#endif

TEST_F(ForkTest, RequestsInFlightStayTheParents) {
  wd_queue q = open(WD_PATH_INLINE);
  std::array<wd_request, 3> requests{nop(1), nop(2), nop(3)};
  for (auto& request : requests) ASSERT_EQ(wd_send(&q, &request), 0);
  EXPECT_EQ(in_child([&] {
              wd_request* got = nullptr;
              if (wd_in_flight(&q) != 0) return 1;
              if (wd_recv(&q, &got) != -EAGAIN) return 2;
              if (wd_recv_sync(&q, &got) != -ENOMSG) return 3;
              wd_flush(&q);
              // Its copy of a request is free again.
              if (wd_send(&q, &requests[0]) != 0 || wd_in_flight(&q) != 1) return 4;
              return wd_recv_sync(&q, &got) == 1 && got == &requests[0] ? 0 : 5;
            }),
            0);
  EXPECT_EQ(wd_in_flight(&q), 3u);
  for (auto& request : requests) {
    wd_request* got = nullptr;
    ASSERT_EQ(wd_recv_sync(&q, &got), 1);
    EXPECT_EQ(got, &request);
  }
  wd_release_queue(&q);
}

TEST_F(ForkTest, ReleaseInTheChildLeavesTheParentsQueue) {
  wd_queue q = open(WD_PATH_INLINE);
  EXPECT_EQ(in_child([&q] {
              wd_release_queue(&q);
              wd_request request = nop();
              return wd_send(&q, &request) == -EINVAL ? 0 : 1;
            }),
            0);
  EXPECT_EQ(in_child([&q] {
              const int used = works(q);
              wd_release_queue(&q);
              return used;
            }),
            0);
  EXPECT_EQ(fake->queue_count(), 1u);
  EXPECT_EQ(works(q), 0);
  wd_release_queue(&q);
}

TEST_F(ForkTest, HoldsAndReinitWorkInTheChild) {
  wd_queue q = open(WD_PATH_INLINE);
  ASSERT_EQ(wd_keep_awake(&q, 1), 0);
  ASSERT_EQ(wd_keep_awake(&q, 1), 0);
  EXPECT_EQ(in_child([&q] {
              if (wd_reinit(&q) != 0) return 1;
              if (engine_side().holds != 1) return 2;
              if (wd_keep_awake(&q, 0) != 0 || engine_side().holds != 1) return 3;
              if (wd_keep_awake(&q, 0) != 0 || engine_side().holds != 0) return 4;
              return works(q);
            }),
            0);
  wd_release_queue(&q);
}

TEST_F(ForkTest, ReservedMemoryIsNotInherited) {
  wd_queue q = open(WD_PATH_INLINE);
  auto* const memory = static_cast<volatile char*>(wd_reserve_memory(&q, 4096));
  ASSERT_NE(memory, nullptr);
  memory[0] = 1;
  EXPECT_EQ(in_child([&] {
              // Something of the child's own may stand there by now: it must stay.
              void* const own = ::mmap(const_cast<char*>(memory), 4096, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
              if (own != memory) return 1;
              memory[0] = 9;
              if (wd_release_memory(&q, const_cast<char*>(memory)) != -EINVAL) return 2;
              if (wd_reserve_memory(&q, 4096) == nullptr) return 3;
              wd_release_queue(&q);
              return memory[0] == 9 ? 0 : 4;
            }),
            0);
  EXPECT_EQ(memory[0], 1);
  wd_release_queue(&q);
}

TEST_F(ForkTest, InheritedReservedObjectLeavesTheChildsOwnMemoryAlone) {
  auto q = Queue::open("fake", {.path = Path::kInline}).value();
  constexpr std::size_t kSize = 1 << 20;
  std::optional<Reserved> parents(q.reserve(kSize).value());
  EXPECT_EQ(in_child([&] {
              auto own = q.reserve(kSize);
              if (!own) return 1;
              // In the hole that the parent's memory has left.
              if (own->bytes().data() != parents->bytes().data()) return 2;
              parents.reset();
              if (!is_mapped(own->bytes().data())) return 3;
              own->bytes()[kSize - 1] = std::byte{1};
              std::byte* const data = own->bytes().data();
              { const Reserved end(std::move(*own)); }
              return is_mapped(data) ? 4 : 0;
            }),
            0);
  parents->bytes()[0] = std::byte{1};
}

TEST_F(ForkTest, ReleasingInheritedMemoryOpensNothing) {
  wd_queue q = open(WD_PATH_INLINE);
  void* const memory = wd_reserve_memory(&q, 4096);
  EXPECT_EQ(in_child([&] {
              if (wd_release_memory(&q, memory) != -EINVAL) return 1;
              if (wd_memory_id(memory) != 0) return 2;
              return Process::existing() == nullptr ? 0 : 3;
            }),
            0);
  wd_release_queue(&q);
}

TEST_F(ForkTest, ForkWhileAnotherThreadSendsAndReceives) {
  wd_queue busy = open(WD_PATH_EMBEDDED);
  wd_queue q = open(WD_PATH_INLINE);
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> rounds{0};
  std::thread worker([&] {
    while (!stop.load()) {
      wd_queue local = open(WD_PATH_EMBEDDED);
      void* const memory = wd_reserve_memory(&local, 4096);
      (void)wd_fd(&local);
      for (int i = 0; i < 20; ++i) (void)works(busy);
      wd_release_memory(&local, memory);
      wd_release_queue(&local);
      rounds.fetch_add(1);
    }
  });
  for (int round = 0; round < 50; ++round) {
    const std::uint64_t before = rounds.load();
    ASSERT_EQ(in_child([&q] {
                ::alarm(120);  // a deadlock ends the test, not the suite
                return works(q);
              }),
              0);
    while (rounds.load() == before) std::this_thread::yield();
  }
  stop.store(true);
  worker.join();
  wd_release_queue(&busy);
  wd_release_queue(&q);
}

TEST_F(ForkTest, ChildClosesInheritedDescriptorsThatAreStillOurs) {
  wd_queue q = open(WD_PATH_INLINE);
  const int fd = wd_fd(&q);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(in_child([&] {
              if (works(q) != 0) return 1;
              return ::fcntl(fd, F_GETFD) == -1 && errno == EBADF ? 0 : 2;
            }),
            0);
  EXPECT_EQ(in_child([&] {
              // The child has closed it and uses the number for an eventfd of its own.
              const UniqueFd own(::eventfd(7, 0));
              if (::dup2(own.get(), fd) != fd) return 1;
              if (works(q) != 0) return 2;
              std::uint64_t value = 0;
              return ::read(fd, &value, sizeof value) == 8 && value == 7 ? 0 : 3;
            }),
            0);
  wd_release_queue(&q);
}

TEST(Ledger, TellsFilesApartThatShareTheAnonymousInode) {
  const UniqueFd first(::eventfd(0, EFD_CLOEXEC));
  const UniqueFd second(::eventfd(0, EFD_CLOEXEC));
  const UniqueFd copy(::dup(first.get()));
  const auto identity = FileIdentity::of(first.get());
  ASSERT_TRUE(identity.known);
  EXPECT_TRUE(identity.same_as(FileIdentity::of(copy.get())));
  EXPECT_FALSE(identity.same_as(FileIdentity::of(second.get())));
  EXPECT_FALSE(FileIdentity::of(-1).same_as(FileIdentity::of(-1)));
}

TEST(Ledger, ClosesWhatIsInItAndNothingElse) {
  Ledger ledger;
  int last = -1;
  for (int i = 0; i < 200; ++i) {
    const int fd = ledger.add(UniqueFd(::memfd_create("entry", MFD_CLOEXEC)));
    ASSERT_GE(fd, 0);
    last = fd;
  }
  ledger.close(last);
  EXPECT_EQ(::fcntl(last, F_GETFD), -1);
  const UniqueFd other(::memfd_create("other", MFD_CLOEXEC));
  EXPECT_EQ(other.get(), last) << "the number is used again";
  ledger.close(last);
  EXPECT_NE(::fcntl(other.get(), F_GETFD), -1);
}

}  // namespace
}  // namespace tandem::wd::detail
