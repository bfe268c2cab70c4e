// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <functional>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "tandem/abi/control.h"
#include "tandem/base/cpu.hpp"
#include "tandem/base/mapping.hpp"
#include "tandem/base/test_sandbox.hpp"
#include "tandem/wd/wd.hpp"

#if defined(__SANITIZE_ADDRESS__)
// In a child that was forked from a process with threads LeakSanitizer looks for threads that do
// not exist there, and reports what the C library keeps for them.
static bool in_forked_child = false;
extern "C" int __lsan_is_turned_off() { return in_forked_child ? 1 : 0; }
#else
[[maybe_unused]] static bool in_forked_child = false;
#endif

namespace tandem::embedded {
namespace {

#if defined(__SANITIZE_THREAD__)
constexpr bool kTsan = true;
#else
constexpr bool kTsan = false;
#endif

std::uint64_t address(const void* pointer) { return reinterpret_cast<std::uint64_t>(pointer); }

/// Runs `body` in a forked child, which exits with its value. Returns the exit status, or −signal.
int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    ::_exit(body());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/// Over both places where embedded devices run.
class EmbeddedTest : public ::testing::TestWithParam<wd::Path> {
 protected:
  static wd::Queue open(const char* algorithm = "memory", std::uint32_t depth = 0) {
    auto queue = wd::open(algorithm, {.path = GetParam(), .depth = depth});
    EXPECT_TRUE(queue) << queue.error().hint;
    return std::move(*queue);
  }
  /// ThreadSanitizer cannot start the child's engine threads.
  static bool can_fork() { return !kTsan || GetParam() == wd::Path::kInline; }
};
INSTANTIATE_TEST_SUITE_P(Paths, EmbeddedTest,
                         ::testing::Values(wd::Path::kInline, wd::Path::kEmbedded),
                         [](const auto& chosen) {
                           return chosen.param == wd::Path::kInline ? "Inline" : "Embedded";
                         });

TEST_P(EmbeddedTest, OperationsOnPlainPointersGiveTheirResults) {
  wd::Queue q = open();
  EXPECT_EQ(q.path(), GetParam());
  std::vector<std::uint8_t> a(300'000), b(300'000);
  std::iota(a.begin(), a.end(), std::uint8_t{1});
  const auto copied = q.run(wd::Copy{b, a});
  ASSERT_TRUE(copied) << copied.error().hint;
  EXPECT_EQ(copied->value, a.size());
  EXPECT_EQ(copied->path, GetParam());
  EXPECT_EQ(copied->device, "mem-0");
  EXPECT_EQ(a, b);
  b[1234] ^= 1;
  EXPECT_EQ(q.run(wd::Compare{a, b})->result, 1234u);
  const std::string_view check = "123456789";
  EXPECT_EQ(q.run(wd::Crc32c{check})->result, 0xe3069283u);
  ASSERT_TRUE(q.run(wd::Fill{.dst = b, .pattern = 0x0807060504030201}));
  EXPECT_EQ(b[17], 2);
  EXPECT_TRUE(q.run(wd::Nop{}));
}

TEST_P(EmbeddedTest, CompressedDataInflatesToItself) {
  wd::Queue q = open("gzip");
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "line " + std::to_string(i * i) + "\n";
  std::vector<char> packed(tandem_compress_bound(static_cast<std::uint32_t>(text.size())));
  std::string back(text.size(), ' ');
  const auto gzip = q.run(wd::Gzip{packed, text});
  ASSERT_TRUE(gzip) << gzip.error().hint;
  EXPECT_LT(gzip->value, text.size() / 2);
  const auto unpacked = q.run(wd::GzipInflate{{back, std::span(packed).first(gzip->value)}});
  ASSERT_TRUE(unpacked) << unpacked.error().hint;
  EXPECT_EQ(back, text);
  const auto tight = q.run(wd::Gzip{wd::Out(packed.data(), 10), text});
  ASSERT_FALSE(tight);
  EXPECT_EQ(tight.error().code, wd::Code::kShortOutput);
  packed[gzip->value / 2] = static_cast<char>(packed[gzip->value / 2] ^ 0x55);
  const auto broken = q.run(wd::GzipInflate{{back, std::span(packed).first(gzip->value)}});
  EXPECT_FALSE(broken);
}

TEST_P(EmbeddedTest, ReservedMemoryIsWorkedOnInPlace) {
  wd::Queue q = open();
  auto memory = q.reserve(1 << 20);
  ASSERT_TRUE(memory) << memory.error().hint;
  const auto bytes = memory->bytes();
  const auto text = bytes.first(65536), packed = bytes.subspan(131072, 131072);
  std::memset(text.data(), 'z', text.size());
  wd::Queue codec = open("gzip");
  const auto done = codec.run(wd::Gzip{packed, text});
  ASSERT_TRUE(done) << done.error().hint;
#if !defined(__aarch64__)  // there level 1 gets a copy of its input, see engine/comp/comp.hpp
  EXPECT_TRUE(done->zero_copy);
#endif
  EXPECT_EQ(q.run(wd::Compare{text, text})->result, text.size());
  std::pmr::vector<int> numbers(100, 7, memory->resource());
  EXPECT_GE(reinterpret_cast<std::byte*>(numbers.data()), bytes.data());
}

TEST_P(EmbeddedTest, BadPointersAreFaultsWithAddressAndProgress) {
  wd::Queue q = open();
  auto pages = Mapping::anonymous(2 * kPageSize).value();
  std::byte* const hole = pages.data() + kPageSize;
  std::array<std::byte, 4096> buffer{};

  std::memset(pages.data(), 1, 2 * kPageSize);
  ASSERT_TRUE(q.run(wd::Copy{buffer, wd::In(hole - 96, 200)})) << "both pages are fine so far";
  ASSERT_EQ(::mprotect(hole, kPageSize, PROT_NONE), 0);
  const auto half = q.run(wd::Copy{buffer, wd::In(hole - 96, 200)});
  ASSERT_FALSE(half);
  EXPECT_EQ(half.error().code, wd::Code::kFault) << half.error().hint;
  EXPECT_EQ(half.error().fault_address, address(hole));
  EXPECT_LE(half.error().done_bytes, 96u);

  ASSERT_EQ(::mprotect(hole, kPageSize, PROT_READ), 0);
  const auto read_only = q.run(wd::Copy{wd::Out(hole, 100), wd::In(buffer.data(), 100)});
  ASSERT_FALSE(read_only);
  EXPECT_EQ(read_only.error().code, wd::Code::kFault) << read_only.error().hint;
  EXPECT_EQ(read_only.error().fault_address, address(hole));
  EXPECT_EQ(read_only.error().done_bytes, 0u);

  ASSERT_EQ(::munmap(hole, kPageSize), 0);
  const auto unmapped = q.run(wd::Crc32c{wd::In(hole - 10, 20)});
  ASSERT_FALSE(unmapped);
  EXPECT_EQ(unmapped.error().fault_address, address(hole));
  EXPECT_TRUE(q.run(wd::Copy{buffer, buffer})) << "nothing has changed for others";
  // The hole goes with the mapping again.
  (void)::mmap(hole, kPageSize, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

TEST_P(EmbeddedTest, RangesThatWrapAreRefused) {
  wd::Queue q = open();
  std::array<std::byte, 64> buffer{};
  for (const std::uint64_t start : {~std::uint64_t{0} - 10, std::uint64_t{1} << 63}) {
    const auto result = q.run(wd::Copy{buffer, wd::In(reinterpret_cast<void*>(start), 64)});
    ASSERT_FALSE(result);
    EXPECT_TRUE(result.error().code == wd::Code::kInvalid ||
                result.error().code == wd::Code::kFault)
        << result.error().hint;
  }
}

TEST_P(EmbeddedTest, UnknownOperationsAreToldSo) {
  wd::Queue q = open();
  wd_request request{};
  request.opcode = 0x77;
  ASSERT_EQ(wd_send(&q.c_queue(), &request), 0);
  wd_request* got = nullptr;
  ASSERT_EQ(wd_recv_sync(&q.c_queue(), &got), 1);
  EXPECT_EQ(got->status, TANDEM_STATUS_UNKNOWN_OPCODE);
}

TEST_P(EmbeddedTest, BatchOfOperationsComesBack) {
  wd::Queue q = open("memory", 64);
  std::vector<std::string> texts(64, "x");
  for (std::size_t i = 0; i < texts.size(); ++i) texts[i] = std::to_string(i * 7919);
  auto batch = q.make_batch();
  for (const auto& text : texts) batch.add(wd::Crc32c{text});
  auto ops = batch.submit();
  ASSERT_EQ(ops.size(), texts.size());
  for (std::size_t i = 0; i < ops.size(); ++i) {
    const auto expected = q.path();
    const auto got = ops[i].get();
    ASSERT_TRUE(got) << got.error().hint;
    EXPECT_EQ(got->path, expected);
  }
  EXPECT_FALSE(q.submit(wd::Nop{}).get()) << "all slots are held by finished operations";
  ops.clear();
  EXPECT_TRUE(q.run(wd::Nop{}));
}

TEST_P(EmbeddedTest, PendingOperationIsWaitedForAndMayBeAwaitedWithADeadline) {
  wd::Queue q = open();
  std::vector<char> src(1 << 20, 'q'), dst(1 << 20);
  { auto op = q.submit(wd::Copy{dst, src}); }
  EXPECT_EQ(src, dst);
  auto op = q.submit(wd::Copy{dst, src});
  const auto result = op.get_until(std::chrono::steady_clock::now() + std::chrono::minutes(1));
  EXPECT_TRUE(result);
  EXPECT_TRUE(op.ready());
  EXPECT_FALSE(op.cancel());
}

TEST_P(EmbeddedTest, EventLoopIsWokenAfterArm) {
  wd::Queue q = open();
  auto op = q.submit(wd::Nop{});
  while (!op.ready()) {
    if (q.arm()) {
      q.poll(1);
      continue;
    }
    pollfd event{q.fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&event, 1, 10'000), 1);
    q.poll(1);
  }
  EXPECT_TRUE(op.get());
}

/// A doorbell page of the process's only queue, found as a hostile library in it would.
tandem_doorbell* find_doorbell() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("memfd:tandem-mmio") == std::string::npos) continue;
    return reinterpret_cast<tandem_doorbell*>(std::stoull(line, nullptr, 16));
  }
  return nullptr;
}

TEST_P(EmbeddedTest, CorruptTailKillsOnlyItsQueue) {
  wd::Queue q = open();
  tandem_doorbell* const doorbell = find_doorbell();
  ASSERT_NE(doorbell, nullptr);
  wd::Queue other = open();
  ASSERT_EQ(wd_keep_awake(&q.c_queue(), 1), 0);  // the engine looks at it without being woken
  wd_request request{};
  request.opcode = WD_OP_NOP;
  ASSERT_EQ(wd_send(&q.c_queue(), &request), 0);
  std::atomic_ref(doorbell->tail).store(1'000'000);
  wd_request* got = nullptr;
  int received = 0, result = 0;
  while ((result = wd_recv(&q.c_queue(), &got)) != -ESHUTDOWN) received += result == 1 ? 1 : 0;
  EXPECT_EQ(received, 1);
  EXPECT_TRUE(other.run(wd::Nop{}));
  ASSERT_TRUE(q.reopen());
  EXPECT_TRUE(q.run(wd::Nop{}));
}

/// In an event loop of its own, say. No handler ever runs on a thread the program did not start.
TEST_P(EmbeddedTest, SignalsAreForTheProgramsThreads) {
  if (!can_fork()) GTEST_SKIP() << "ThreadSanitizer starts no threads in a forked child";
  EXPECT_EQ(in_child([] {
              static std::atomic<int> handled{0};
              wd::Queue q = open();
              std::vector<std::uint8_t> a(100), b(100);
              if (!q.run(wd::Copy{b, a})) return 2;
              sigset_t usr1;
              ::sigemptyset(&usr1);
              ::sigaddset(&usr1, SIGUSR1);
              ::pthread_sigmask(SIG_BLOCK, &usr1, nullptr);
              ::signal(SIGUSR1, [](int) { handled.fetch_add(1); });
              ::kill(::getpid(), SIGUSR1);
              if (!q.run(wd::Copy{b, a})) return 3;
              ::usleep(20'000);  // for a handler on the wrong thread
              const timespec patience{10, 0};
              if (::sigtimedwait(&usr1, nullptr, &patience) != SIGUSR1) return 4;
              return handled.load();
            }),
            0);
}

TEST_P(EmbeddedTest, DevicesAreListed) {
  const wd::Queue q = open();
  std::array<wd_device, 4> devices{};
  ASSERT_EQ(wd_list_devices(static_cast<std::uint32_t>(GetParam()), devices.data(), 4), 3);
  const auto mem = std::find_if(devices.begin(), devices.end(), [](const wd_device& device) {
    return device.name == std::string_view("mem-0");
  });
  ASSERT_NE(mem, devices.end());
  EXPECT_GE(mem->queues_used, 1u);
  EXPECT_EQ(mem->flags & TANDEM_DEVICE_SVA, TANDEM_DEVICE_SVA);
}

TEST_P(EmbeddedTest, ChildAndGrandchildGoOn) {
  if (!can_fork()) GTEST_SKIP() << "ThreadSanitizer: no threads in the child";
  wd::Queue q = open();
  const auto works = [&q] {
    std::array<char, 5000> src{}, dst{};
    src.fill('c');
    const auto result = q.run(wd::Copy{dst, src});
    return result && src == dst ? 0 : 1;
  };
  auto pending = q.submit(wd::Nop{});
  EXPECT_EQ(in_child([&] {
              auto mine = std::move(pending);
              const auto lost = mine.get();
              if (lost || lost.error().code != wd::Code::kDeviceLost) return 3;
              if (works() != 0) return 1;
              return in_child(works) == 0 && works() == 0 ? 0 : 2;
            }),
            0);
  EXPECT_TRUE(pending.get());
  EXPECT_EQ(works(), 0);
}

TEST_P(EmbeddedTest, ChildThatExitsNormallyStopsOnlyItsOwnDevices) {
  if (!can_fork()) GTEST_SKIP() << "ThreadSanitizer: no threads in the child";
  wd::Queue q = open();
  ASSERT_TRUE(q.run(wd::Nop{}));
  for (const bool used : {false, true}) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(60);
      in_forked_child = true;
      std::exit(used && !q.run(wd::Nop{}) ? 1 : 0);  // NOLINT(concurrency-mt-unsafe)
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_TRUE(q.run(wd::Nop{}));
}

TEST_P(EmbeddedTest, RawCloneIsNoticed) {
  if (kTsan) GTEST_SKIP() << "ThreadSanitizer takes the parent's threads for the child's";
  wd::Queue q = open();
  ASSERT_TRUE(q.run(wd::Nop{}));
  const auto child =
      static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, 0));
  if (child == 0) ::_exit(q.run(wd::Nop{}) ? 0 : 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_P(EmbeddedTest, ForkInTheMiddleOfAnotherThreadsWork) {
  if (!can_fork()) GTEST_SKIP() << "ThreadSanitizer: no threads in the child";
  wd::Queue q = open();
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> done{0};
  std::thread worker([&] {
    wd::Queue mine = open();
    std::array<char, 1024> a{}, b{};
    while (!stop.load()) {
      if (!mine.run(wd::Copy{a, b})) return;
      done.fetch_add(1);
    }
  });
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t before = done.load();
    ASSERT_EQ(in_child([&q] { return q.run(wd::Nop{}) ? 0 : 1; }), 0);
    while (done.load() == before) std::this_thread::yield();
  }
  stop.store(true);
  worker.join();
}

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
TEST(Embedded, AMillionOperationsMakeNoSystemCall) {
  if (usable_cpus() == 1) GTEST_SKIP() << "one CPU: the engine needs the scheduler";
  EXPECT_EQ(in_child([] {
              wd_queue q = WD_QUEUE_INIT;
              q.algorithm = "memory";
              q.path = WD_PATH_EMBEDDED;
              q.depth = 4096;
              if (wd_request_queue(&q) != 0 || wd_keep_awake(&q, 1) != 0) return 2;
              std::vector<wd_request> requests(q.depth);
              for (auto& request : requests) request.opcode = WD_OP_NOP;
              forbid_system_calls();
              std::uint64_t sent = 0;
              for (std::uint64_t received = 0; received < 1'000'000;) {
                while (sent < 1'000'000 && wd_send(&q, &requests[sent % q.depth]) == 0) ++sent;
                wd_request* got = nullptr;
                while (wd_recv(&q, &got) == 1) {
                  if (got->status != TANDEM_STATUS_OK) return 3;
                  ++received;
                }
              }
              ::_exit(0);  // destructors would return memory
            }),
            0);
}
#endif

TEST(Embedded, DefaultQueueRunsAnyOperation) {
  ::setenv("TANDEM", "inline", 1);
  const std::string_view check = "123456789";
  const auto crc = wd::run(wd::Crc32c{check});
  ASSERT_TRUE(crc) << crc.error().hint;
  EXPECT_EQ(crc->result, 0xe3069283u);
  std::vector<char> packed(100);
  const auto gzip = wd::run(wd::Gzip{packed, check});
  ASSERT_TRUE(gzip) << gzip.error().hint;
  EXPECT_EQ(gzip->path, wd::Path::kInline);
  ::unsetenv("TANDEM");
}

TEST(Embedded, SmallOperationsRunInTheCallerWhenAskedTo) {
  auto q = wd::open("memory", {.path = wd::Path::kEmbedded, .inline_below = 1000}).value();
  std::array<char, 2000> a{}, b{};
  EXPECT_EQ(q.run(wd::Copy{b, wd::In(a.data(), 10)})->path, wd::Path::kInline);
  EXPECT_EQ(q.run(wd::Copy{b, a})->path, wd::Path::kEmbedded);
}

TEST(Embedded, ErrorsSayWhatToDo) {
  const auto none = wd::open("no-such-algorithm", {.path = wd::Path::kInline});
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, wd::Code::kNoDevice);
  EXPECT_NE(std::string_view(none.error().hint).find("try"), std::string_view::npos);
}

}  // namespace
}  // namespace tandem::embedded
