// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/srcu.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "tandem/base/cpu.hpp"
#include "tandem/base/rseq.hpp"
#include "tandem/rcu/detail/test_scheduling.hpp"
#include "tandem/rcu/detail/test_threads.hpp"

namespace tandem::rcu {

/// A thread that loaded the index, was preempted, and counts only now.
struct SrcuTestAccess {
  static int lock_at(srcu_domain& domain, unsigned index) {
    domain.enter(index);
    return static_cast<int>(index);
  }
  static unsigned index(const srcu_domain& domain) { return domain.index_; }
};

namespace {

using namespace std::chrono_literals;
using detail::comes_true;
using detail::wait_until;
using Sleeper = detail::Occupant<srcu_domain, srcu_section>;

static_assert(!std::is_copy_constructible_v<srcu_domain>);
static_assert(noexcept(std::declval<srcu_domain&>().lock()));

TEST(Srcu, SynchronizeWaitsForASleepingReader) {
  srcu_domain domain;
  Sleeper sleeper(domain);
  const detail::Waiter updater([&] { domain.synchronize(); });
  // Long enough for the updater to go to sleep: also the wake-up is tested.
  std::this_thread::sleep_for(20ms);
  EXPECT_FALSE(updater.returned());
  EXPECT_EQ(domain.reader_count(), 1u);
  sleeper.leave();
  EXPECT_TRUE(comes_true([&] { return updater.returned(); }));
  EXPECT_EQ(domain.reader_count(), 0u);
}

TEST(Srcu, SynchronizeGivesItsCpuAwayOnlyToSleep) {
  srcu_domain domain;
  Sleeper sleeper(domain);
  const long losses =
      detail::cpu_losses_before_sleep([&] { domain.synchronize(); }, [&] { sleeper.leave(); });
  if (losses < 0) GTEST_SKIP() << "/proc does not tell what the thread does";
  EXPECT_LE(losses, detail::kFewLosses);
}

TEST(Srcu, SynchronizeDoesNotWaitForAnotherDomain) {
  srcu_domain domain;
  srcu_domain other;
  Sleeper sleeper(other);
  const srcu_section section(other);
  domain.synchronize();
  domain.synchronize_expedited();
}

TEST(Srcu, AnInnerUnlockDoesNotEndTheSection) {
  srcu_domain domain;
  std::atomic<int> stage{0};
  std::thread reader([&] {
    const int outer = domain.lock();
    const int inner = domain.lock();
    domain.unlock(inner);
    stage = 1;
    wait_until([&] { return stage == 2; });
    domain.unlock(outer);
  });
  wait_until([&] { return stage == 1; });
  const gp_state state = domain.start_poll();
  for (int i = 0; i < 1000; ++i) EXPECT_FALSE(domain.poll_state(state));
  stage = 2;
  reader.join();
  EXPECT_TRUE(comes_true([&] { return domain.poll_state(state); }));
}

TEST(Srcu, SectionsMayOverlapInAnyOrderAndInManyDomains) {
  std::array<srcu_domain, 20> domains;
  std::array<int, 20> tokens{};
  for (int round = 0; round < 3; ++round) {
    for (std::size_t i = 0; i < domains.size(); ++i) tokens[i] = domains[i].lock();
    for (srcu_domain& domain : domains) EXPECT_EQ(domain.reader_count(), 1u);
    for (std::size_t i = 0; i < domains.size(); ++i) {
      const std::size_t k = (i * 7 + 3) % domains.size();
      const int again = domains[k].lock();
      domains[k].unlock(tokens[k]);
      domains[k].unlock(again);
      domains[k].synchronize();
    }
  }
}

TEST(Srcu, SectionsThatBeginLaterDoNotHoldItUp) {
  srcu_domain domain;
  std::atomic<bool> stop{false};
  std::atomic<int> turn{0};
  std::atomic<int> inside{0};
  // Two threads whose sections overlap without a gap.
  std::vector<std::thread> relay;
  for (int id = 0; id < 2; ++id) {
    relay.emplace_back([&, id] {
      while (!stop) {
        wait_until([&] { return turn == id || stop; });
        const srcu_section section(domain);
        ++inside;
        turn = 1 - id;
        wait_until([&] { return turn == id || stop; });
      }
    });
  }
  wait_until([&] { return inside > 2; });
  std::atomic<int> passed{0};
  std::thread updater([&] {
    for (int i = 0; i < 20; ++i) {
      domain.synchronize();
      ++passed;
    }
  });
  EXPECT_TRUE(comes_true([&] { return passed == 20; }));
  stop = true;
  for (auto& thread : relay) thread.join();
  updater.join();
}

TEST(Srcu, AReaderThatLoadedTheIndexTwoFlipsAgoIsWaitedFor) {
  srcu_domain domain;
  for (const unsigned stale : {0u, 1u}) {
    std::atomic<int> stage{0};
    std::thread reader([&] {
      const int token = SrcuTestAccess::lock_at(domain, stale);
      stage = 1;
      wait_until([&] { return stage == 2; });
      domain.unlock(token);
    });
    wait_until([&] { return stage == 1; });
    const gp_state state = domain.start_poll();
    for (int i = 0; i < 1000; ++i) EXPECT_FALSE(domain.poll_state(state));
    stage = 2;
    reader.join();
    EXPECT_TRUE(comes_true([&] { return domain.poll_state(state); }));
  }
}

// Short sections that come and go between the two sums must not pass for the end of a long one.
TEST(Srcu, ShortSectionsDoNotStandInForALongOne) {
  srcu_domain domain;
  std::atomic<bool> stop{false};
  std::vector<std::thread> crowd;
  for (int i = 0; i < 2; ++i) {
    crowd.emplace_back([&] {
      while (!stop) {
        for (int n = 0; n < 1024; ++n) {
          const srcu_section section(domain);
          for (int pause = n % 4; pause > 0; --pause) cpu_pause();
        }
        std::this_thread::yield();
      }
    });
  }
  std::atomic<std::uint32_t> stage{0};  // odd: a section is to be open
  std::atomic<std::uint32_t> reached{0};
  std::thread reader([&] {
    for (std::uint32_t seen = 0; !stop;) {
      wait_until([&] { return stage != seen || stop; });
      if (stop) return;
      const srcu_section section(domain);
      seen = stage;
      reached = seen;
      wait_until([&] { return stage != seen || stop; });
      seen = stage;
    }
  });
  int early = 0;
  const auto until = std::chrono::steady_clock::now() + 2s;
  while (early == 0 && std::chrono::steady_clock::now() < until) {
    ++stage;
    wait_until([&] { return reached == stage; });
    const gp_state state = domain.start_poll();
    for (int i = 0; i < 5; ++i) early += domain.poll_state(state);
    ++stage;
    while (!domain.poll_state(state)) std::this_thread::yield();
  }
  stop = true;
  reader.join();
  for (auto& thread : crowd) thread.join();
  EXPECT_EQ(early, 0);
}

TEST(SrcuMemory, IsProportionalToTheCpusThatArePresent) {
  EXPECT_EQ(sizeof(srcu_domain), 192u);
  EXPECT_EQ(srcu_domain::size_bytes(), 192 + 64 + 64 * std::size_t{present_cpus()});
}

TEST(SrcuDeath, MisuseIsReported) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        srcu_domain domain;
        const srcu_section section(domain);
        domain.synchronize();
      },
      "sections_here");
  EXPECT_DEATH(
      {
        srcu_domain domain;
        domain.unlock(0);
      },
      "this_thread_has_it_open");
  EXPECT_DEATH(
      {
        srcu_domain domain;
        (void)domain.lock();
      },
      "reader_count");
}

TEST(Srcu, AThreadThatEndsInASectionLeavesItOpen) {
  auto* const domain = new srcu_domain;  // cannot be destroyed any more
  static srcu_domain* reachable = domain;
  std::thread([&] { (void)domain->lock(); }).join();
  EXPECT_EQ(reachable->reader_count(), 1u);
  const gp_state state = domain->start_poll();
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(domain->poll_state(state));
}

/// An object whose memory stays readable after its deletion: a too early one shows as an age.
struct Aging {
  std::atomic<int> age{0};
};

/// Readers, some of which sleep, against updaters of every kind; an element is reused two grace
/// periods after it was unpublished, and no reader may see it older than one.
TEST(SrcuStress, NoReaderSeesAnElementAfterItsGracePeriod) {
  srcu_domain domain;
  constexpr std::size_t kElements = 8;
  std::array<Aging, kElements> elements;
  std::atomic<Aging*> current{&elements[0]};
  std::atomic<bool> stop{false};
  std::atomic<int> errors{0};
  std::atomic<std::uint64_t> sections{0};
  std::vector<std::thread> readers;
  for (int id = 0; id < 4; ++id) {
    readers.emplace_back([&, id] {
      std::uint64_t n = 0;
      for (; !stop; ++n) {
        const srcu_section section(domain);
        const Aging* const seen = current.load(std::memory_order_acquire);
        errors += seen->age.load(std::memory_order_relaxed) > 1;
        if (id == 0 && n % 64 == 0) std::this_thread::sleep_for(50us);
        if (id == 1 && n % 16 == 0) std::this_thread::yield();
        errors += seen->age.load(std::memory_order_relaxed) > 1;
      }
      sections += n;
    });
  }
  const auto until = std::chrono::steady_clock::now() + 1s;
  std::size_t next = 1;
  for (int round = 0; std::chrono::steady_clock::now() < until; ++round) {
    Aging& fresh = elements[next++ % kElements];
    fresh.age.store(0, std::memory_order_relaxed);
    Aging* const old = current.exchange(&fresh, std::memory_order_acq_rel);
    old->age.store(1, std::memory_order_relaxed);
    switch (round % 4) {
      case 0:
        domain.synchronize();
        break;
      case 1:
        domain.synchronize_expedited();
        break;
      case 2:
        domain.cond_synchronize(domain.get_state());
        break;
      default: {
        const gp_state state = domain.start_poll();
        while (!domain.poll_state(state)) std::this_thread::yield();
      }
    }
    old->age.store(2, std::memory_order_relaxed);
  }
  stop = true;
  for (auto& reader : readers) reader.join();
  EXPECT_EQ(errors, 0);
  EXPECT_GT(sections, 0u);
  EXPECT_EQ(domain.reader_count(), 0u);
}

TEST(SrcuStress, ManySynchronizersShareGracePeriods) {
  srcu_domain domain;
  std::vector<std::thread> threads;
  constexpr int kThreads = 6;
  constexpr int kEach = 500;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int n = 0; n < kEach; ++n) {
        i % 2 == 0 ? domain.synchronize() : domain.synchronize_expedited();
        const srcu_section section(domain);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_LE(domain.get_state().value, std::uint64_t{kThreads} * kEach + 1);
}

TEST(Srcu, CountsByRestartableSequencesWhereTheyAreThere) {
  EXPECT_EQ(srcu_domain().uses_rseq(), rseq_available());
}

class SrcuFallback : public ::testing::TestWithParam<const char*> {};

TEST_P(SrcuFallback, EverythingWorksWithoutTheKernelsHelp) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::setenv("TANDEM_DISABLE", GetParam(), 1);
    ::execl("/proc/self/exe", "srcu",
            "--gtest_filter=Srcu.*:SrcuPoll.*:SrcuCall.*:SrcuFork.*:SrcuStress.*"
            // The order of sums is the same however readers count.
            "-Srcu.ShortSectionsDoNotStandInForALongOne",
            nullptr);
    ::_exit(2);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

INSTANTIATE_TEST_SUITE_P(, SrcuFallback,
                         ::testing::Values("rseq", "membarrier", "rseq,membarrier"));

}  // namespace
}  // namespace tandem::rcu
