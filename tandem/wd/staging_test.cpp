// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <numeric>
#include <thread>
#include <vector>

#include "tandem/wd/detail/fixture.hpp"
#include "tandem/wd/detail/memory.hpp"

namespace tandem::wd::detail {
namespace {

/// Two pages, of which the second can be taken away.
class TwoPages {
 public:
  TwoPages() : memory_(Mapping::anonymous(2 * kPageSize).value()) {}
  std::byte* data() { return memory_.data(); }
  std::byte* second() { return memory_.data() + kPageSize; }
  void protect_second(int protection) { ::mprotect(second(), kPageSize, protection); }

 private:
  Mapping memory_;
};

std::uint64_t address(const void* pointer) { return reinterpret_cast<std::uint64_t>(pointer); }

// ThreadSanitizer does not see that rings order accesses, since each side maps them at an address
// of its own: there the engine runs in the caller.
#if defined(__SANITIZE_THREAD__)
constexpr std::array kPaths = {WD_PATH_INLINE};
#else
constexpr std::array kPaths = {WD_PATH_EMBEDDED, WD_PATH_INLINE};
#endif

class StagingTest : public WdTest {
 protected:
  void SetUp() override {
    WdTest::SetUp();
    behaviour.reaches_ordinary_memory = false;
  }
  static std::uint64_t staged(wd_queue& q) {
    wd_stats stats{};
    EXPECT_EQ(wd_get_stats(&q, &stats), 0);
    return stats.staged;
  }
};

TEST_F(StagingTest, OrdinaryMemoryGoesThroughReservedMemory) {
  wd_queue q = open(WD_PATH_INLINE);
  const std::uint64_t before = staged(q);
  std::vector<std::uint8_t> src(100'000), dst(100'000);
  std::iota(src.begin(), src.end(), std::uint8_t{3});
  std::uint64_t seen_src = 0, seen_dst = 0;
  behaviour.execute = [&](const tandem_descriptor& descriptor) {
    seen_src = descriptor.src;
    seen_dst = descriptor.dst;
    return run_plainly(descriptor);
  };
  wd_request request = copy(dst.data(), src.data(), src.size());
  run(q, request);
  EXPECT_EQ(request.status, TANDEM_STATUS_OK);
  EXPECT_EQ(request.done, src.size());
  EXPECT_EQ(src, dst);
  EXPECT_NE(seen_src, address(src.data()));
  EXPECT_NE(seen_dst, address(dst.data()));
  EXPECT_EQ(staged(q), before + 1);
  wd_release_queue(&q);
  EXPECT_EQ(fake->reserved_count(), 0u) << "the pool goes with the queue";
}

TEST_F(StagingTest, ReservedMemoryIsUsedInPlace) {
  wd_queue q = open(WD_PATH_INLINE);
  behaviour.execute = run_plainly;
  auto* const memory = static_cast<char*>(wd_reserve_memory(&q, 8192));
  std::memset(memory, 'x', 4096);
  const std::uint64_t before = staged(q);
  wd_request request = copy(memory + 4096, memory, 4096);
  run(q, request);
  EXPECT_EQ(memory[8191], 'x');
  EXPECT_EQ(staged(q), before);
  wd_release_queue(&q);
}

TEST_F(StagingTest, ReservedMemoryOfADeadSideIsStaged) {
  wd_queue q = open(WD_PATH_INLINE);
  auto* const memory = static_cast<char*>(wd_reserve_memory(&q, 8192));
  std::memset(memory, 'x', 4096);
  fake->kill();
  ASSERT_EQ(wd_reinit(&q), 0);
  const std::uint64_t before = staged(q);
  wd_request request = copy(memory + 4096, memory, 4096);
  run(q, request);
  EXPECT_EQ(request.status, TANDEM_STATUS_OK);
  EXPECT_EQ(memory[8191], 'x');
  EXPECT_EQ(staged(q), before + 1) << "the new side knows nothing of it";
  wd_release_queue(&q);
}

TEST_F(StagingTest, MemoryReservedByAnotherThreadIsKnownToAllQueues) {
  wd_queue q = open(WD_PATH_INLINE);
  wd_queue other = open(WD_PATH_INLINE);
  const std::uint64_t before = staged(q);
  char* memory = nullptr;
  for (int round = 0; round < 100; ++round) {
    std::thread([&] { memory = static_cast<char*>(wd_reserve_memory(&other, 8192)); }).join();
    wd_request request = copy(memory + 4096, memory, 4096);
    run(q, request);
    ASSERT_EQ(staged(q), before);
    ASSERT_EQ(wd_release_memory(&q, memory), 0);
  }
  wd_release_queue(&other);
  wd_release_queue(&q);
}

TEST_F(StagingTest, PoolOfTheLastQueueTakesNobodyElsesMemory) {
  wd_queue q = open(WD_PATH_INLINE);
  wd_queue other = open(WD_PATH_EMBEDDED);
  std::array<char, 64> src{}, dst{};
  std::array<wd_request, 2> requests{copy(dst.data(), src.data(), 64),
                                     copy(dst.data(), src.data(), 64)};
  for (auto& request : requests) ASSERT_EQ(wd_send(&q, &request), 0);
  // While the second buffer goes, somebody reserves memory, where the first has been.
  void* memory = nullptr;
  int released = 0;
  behaviour.on_release = [&] {
    if (++released == 2) memory = wd_reserve_memory(&other, 64 << 10);
  };
  wd_release_queue(&q);
  behaviour.on_release = nullptr;
  ASSERT_NE(memory, nullptr);
  EXPECT_TRUE(is_mapped(memory));
  EXPECT_EQ(wd_release_memory(&other, memory), 0);
  wd_release_queue(&other);
}

TEST_F(StagingTest, EngineThatAsksForStagingGetsIt) {
  behaviour.reaches_ordinary_memory = true;
  for (const wd_path path : kPaths) {
    std::array<char, 64> src{}, dst{};
    src.fill('s');
    std::atomic<int> asked{0};
    behaviour.execute = [&](const tandem_descriptor& descriptor) {
      if (descriptor.src != address(src.data())) return run_plainly(descriptor);
      ++asked;
      tandem_completion answer{};
      answer.status = TANDEM_STATUS_NEEDS_STAGING;
      answer.fault_address = descriptor.src;
      return answer;
    };
    wd_queue q = open(path);
    const std::uint64_t before = staged(q);
    wd_request request = copy(dst.data(), src.data(), src.size());
    run(q, request);
    EXPECT_EQ(request.status, TANDEM_STATUS_OK);
    EXPECT_EQ(src, dst);
    EXPECT_EQ(asked, 1);
    EXPECT_EQ(staged(q), before + 1);
    EXPECT_EQ(wd_in_flight(&q), 0u);
    wd_release_queue(&q);
    behaviour.era.fetch_add(1);
  }
}

TEST_F(StagingTest, FullRingOfStagedRequestsComesBack) {
  behaviour.execute = run_plainly;
  wd_queue q = open(kPaths[0], 8);
  for (int round = 0; round < 50; ++round) {
    std::array<std::array<char, 300>, 8> src{}, dst{};
    std::array<wd_request, 8> requests{};
    for (std::size_t i = 0; i < 8; ++i) {
      src[i].fill(static_cast<char>('a' + i));
      requests[i] = copy(dst[i].data(), src[i].data(), 300);
      ASSERT_EQ(wd_send(&q, &requests[i]), 0);
    }
    wd_flush(&q);
    wd_request* got = nullptr;
    for (int i = 0; i < 8; ++i) ASSERT_EQ(wd_recv(&q, &got), 1);
    ASSERT_EQ(src, dst);
  }
  EXPECT_LE(fake->reserved_count(), 8u) << "buffers are used again";
  wd_release_queue(&q);
}

TEST_F(StagingTest, UnmappedInputIsAFaultThatNobodySees) {
  behaviour.execute = run_plainly;
  wd_queue q = open(WD_PATH_INLINE);
  TwoPages pages;
  pages.protect_second(PROT_NONE);
  std::array<char, 256> dst{};
  wd_request request = copy(dst.data(), pages.second() + 16, 100);
  run(q, request);
  EXPECT_EQ(request.status, TANDEM_STATUS_FAULT);
  EXPECT_EQ(request.fault_address, address(pages.second() + 16));
  EXPECT_EQ(request.done, 0u);
  wd_release_queue(&q);
}

TEST_F(StagingTest, HalfValidInputTellsWhereAndHowMuch) {
  behaviour.execute = run_plainly;
  wd_queue q = open(WD_PATH_INLINE);
  TwoPages pages;
  std::memset(pages.data(), 'h', kPageSize);
  pages.protect_second(PROT_NONE);
  std::array<char, 256> dst{};
  wd_request request = copy(dst.data(), pages.second() - 100, 200);
  run(q, request);
  EXPECT_EQ(request.status, TANDEM_STATUS_FAULT);
  EXPECT_EQ(request.fault_address, address(pages.second()));
  EXPECT_EQ(request.done, 100u);
  EXPECT_EQ(dst[99], 'h');
  EXPECT_EQ(dst[100], 0);

  // A difference before the unreadable byte is an answer; none is a fault.
  std::array<char, 200> other{};
  other.fill('h');
  wd_request compare = copy(other.data(), pages.second() - 100, 200);
  compare.opcode = WD_OP_COMPARE;
  run(q, compare);
  EXPECT_EQ(compare.status, TANDEM_STATUS_FAULT);
  EXPECT_EQ(compare.done, 100u);
  other[50] = 'x';
  run(q, compare);
  EXPECT_EQ(compare.status, TANDEM_STATUS_OK);
  EXPECT_EQ(compare.result, 50u);
  wd_release_queue(&q);
}

TEST_F(StagingTest, ReadOnlyOutputIsAFaultAtItsFirstByte) {
  behaviour.execute = run_plainly;
  wd_queue q = open(WD_PATH_INLINE);
  TwoPages pages;
  pages.protect_second(PROT_READ);
  std::array<char, 200> src{};
  src.fill('r');
  wd_request request = copy(pages.second() - 50, src.data(), 200);
  run(q, request);
  EXPECT_EQ(request.status, TANDEM_STATUS_FAULT);
  EXPECT_EQ(request.fault_address, address(pages.second()));
  EXPECT_EQ(request.done, 50u);
  wd_release_queue(&q);
}

TEST_F(StagingTest, FaultInTheBufferIsToldAsTheUsersAddress) {
  behaviour.execute = [](const tandem_descriptor& descriptor) {
    tandem_completion answer{};
    answer.status = TANDEM_STATUS_FAULT;
    answer.fault_address = descriptor.dst + 7;
    answer.done = 7;
    return answer;
  };
  wd_queue q = open(WD_PATH_INLINE);
  std::array<char, 64> src{}, dst{};
  wd_request request = copy(dst.data(), src.data(), 64);
  run(q, request);
  EXPECT_EQ(request.fault_address, address(dst.data() + 7));
  EXPECT_EQ(request.done, 7u);
  wd_release_queue(&q);
}

TEST_F(StagingTest, WrappingRangesAreLeftToTheEngine) {
  std::uint64_t seen = 0;
  behaviour.execute = [&seen](const tandem_descriptor& descriptor) {
    seen = descriptor.src;
    tandem_completion answer{};
    answer.status = TANDEM_STATUS_BAD_RANGE;
    return answer;
  };
  wd_queue q = open(WD_PATH_INLINE);
  auto* const wild = reinterpret_cast<void*>(~std::uint64_t{15});
  std::array<char, 64> dst{};
  wd_request request = copy(dst.data(), wild, 64);
  run(q, request);
  EXPECT_EQ(request.status, TANDEM_STATUS_BAD_RANGE);
  EXPECT_EQ(seen, address(wild));
  wd_release_queue(&q);
}

TEST_F(StagingTest, NoRoomIsBusyWhileOthersAreStagedAndElseAnError) {
  behaviour.execute = run_plainly;
  behaviour.reserved_limit = 1 << 20;
  wd_queue q = open(WD_PATH_INLINE);
  std::vector<char> large(2 << 20);
  wd_request request = copy(large.data(), large.data(), large.size());
  EXPECT_EQ(wd_send(&q, &request), -ENOMEM);
  std::array<char, 16> small{};
  wd_request fine = copy(small.data(), small.data() + 8, 8);
  ASSERT_EQ(wd_send(&q, &fine), 0);
  EXPECT_EQ(wd_send(&q, &request), -EBUSY);
  wd_release_queue(&q);
}

TEST(Memory, CopiesUpToTheFirstBadByte) {
  TwoPages pages;
  std::vector<std::byte> buffer(2 * kPageSize);
  EXPECT_EQ(copy_from_user(buffer, address(pages.data())), buffer.size());
  pages.protect_second(PROT_NONE);
  EXPECT_EQ(copy_from_user(buffer, address(pages.data())), kPageSize);
  EXPECT_EQ(copy_to_user(address(pages.data() + 10), buffer), kPageSize - 10);
  EXPECT_EQ(copy_from_user(buffer, 0), 0u);
  EXPECT_EQ(copy_to_user(~std::uint64_t{0}, {buffer.data(), 1}), 0u);
}

}  // namespace
}  // namespace tandem::wd::detail
