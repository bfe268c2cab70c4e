// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <string_view>
#include <thread>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/base/features.hpp"
#include "tandem/base/field.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/base/mapping.hpp"
#include "tandem/base/result.hpp"
#include "tandem/base/test_sandbox.hpp"

namespace tandem {
namespace {

TEST(Result, HoldsAValueOrAnError) {
  const Result<int> good = 7;
  const Result<int> bad = errno_error(EINVAL);
  EXPECT_EQ(*good, 7);
  EXPECT_FALSE(bad);
  EXPECT_EQ(bad.error().value(), EINVAL);
  EXPECT_EQ(bad.value_or(3), 3);
}

TEST(ResultDeath, ValueOfAnErrorAborts) {
  const Result<int> bad = errno_error(EINVAL);
  EXPECT_DEATH((void)bad.value(), "tandem: an error that nobody looked at: Invalid argument\n");
  const Result<int> good = 7;
  EXPECT_DEATH((void)good.error(), "invariant broken");
  const Result<void, std::string> texts = Unexpected{std::string("told")};
  EXPECT_DEATH(texts.value(), "an error that nobody looked at: told\n");
}

TEST(Field, BothEndsAreInclusive) {
  using F = Field<11, 4>;
  EXPECT_EQ(F::kMask, 0xff0u);
  EXPECT_EQ(F::get(0xabcd), 0xbcu);
  EXPECT_EQ(F::set(0xabcd, 0x12), 0xa12du);
  EXPECT_EQ((Field<63, 0>::kMask), ~0ull);
}

TEST(Mapping, SealedMemfdCannotShrink) {
  auto fd = make_sealed_memfd("tandem-test", kPageSize);
  ASSERT_TRUE(fd);
  EXPECT_NE(::ftruncate(fd->get(), 0), 0);
  auto one = Mapping::shared(fd->get(), kPageSize);
  auto two = Mapping::shared(fd->get(), kPageSize);
  ASSERT_TRUE(one && two);
  std::strcpy(reinterpret_cast<char*>(one->data()), "seen");
  EXPECT_STREQ(reinterpret_cast<char*>(two->data()), "seen");
}

TEST(Futex, WakesASleeperAndTimesOut) {
  std::atomic<std::uint32_t> word{0};
  EXPECT_FALSE(futex_wait(word, 0, std::chrono::milliseconds(1)));
  std::jthread waker([&] {
    word.store(1);
    futex_wake(word);
  });
  while (word.load() == 0) futex_wait(word, 0, std::chrono::seconds(10));
}

TEST(Cpu, AtLeastOneIsUsable) { EXPECT_GE(usable_cpus(), 1); }

TEST(Features, HaveTheirDocumentedNames) {
  EXPECT_EQ(feature_name(Feature::kProcmapQuery), "procmap_query");
  EXPECT_EQ(feature_name(Feature::kMembarrier), "membarrier");
  EXPECT_EQ(feature_name(Feature::kPeerPidfd), "peerpidfd");
  EXPECT_EQ(feature_name(Feature::kProcMem), "procmem");
  EXPECT_EQ(feature_name(Feature::kRseq), "rseq");
}

TEST(AsymmetricFence, HeavyHalfRunsOnceRegistered) {
  if (register_process_fence()) heavy_fence_process();
  full_fence();
}

TEST(AsymmetricFence, SandboxThatForbidsItEndsNobody) {
  if (!register_process_fence()) GTEST_SKIP() << "no membarrier here";
  const pid_t child = ::fork();
  if (child == 0) {
    if (!refuse_system_call(SYS_membarrier, EPERM)) ::_exit(77);
    ::pthread_cancel(::pthread_self());  // not here: the fence is noexcept
    const auto before = std::chrono::steady_clock::now();
    if (heavy_fence_process()) ::_exit(2);
    ::_exit(std::chrono::steady_clock::now() - before < std::chrono::milliseconds(1));
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "no seccomp here";
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace tandem
