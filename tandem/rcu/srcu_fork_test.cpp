// SPDX-License-Identifier: Apache-2.0
// Sleepable domains in a forked child.
#include <gtest/gtest.h>
#include <pthread.h>

#include <array>
#include <atomic>
#include <csignal>
#include <thread>
#include <vector>

#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/srcu.hpp"

namespace tandem::rcu {
namespace {

using detail::in_child;
using Sleeper = detail::Occupant<srcu_domain, srcu_section>;

TEST(SrcuFork, AChildCanUseTheDomainAtOnceWhateverOtherThreadsHaveOpen) {
  srcu_domain domain;
  domain.retire(new int(1));
  Sleeper sleeper(domain);
  const gp_state before = domain.start_poll();
  EXPECT_EQ(in_child([&] {
              if (!domain.poll_state(before)) domain.cond_synchronize(before);
              domain.synchronize();
              if (domain.reader_count() != 0) return 1;
              int deleted = 0;
              domain.retire(&deleted, [](int* count) { ++*count; });
              domain.barrier();
              return deleted == 1 ? 0 : 2;
            }),
            0);
  EXPECT_EQ(domain.reader_count(), 1u);
}

TEST(SrcuFork, ASectionOfTheForkingThreadGoesOnInTheChild) {
  srcu_domain domain;
  srcu_domain other;
  const int token = domain.lock();
  const int inner = domain.lock();
  const auto child = [&] {
    other.synchronize();
    if (domain.reader_count() != 2) return 1;
    const gp_state state = domain.start_poll();
    for (int i = 0; i < 100; ++i) {
      if (domain.poll_state(state)) return 2;
    }
    domain.unlock(inner);
    for (int i = 0; i < 100; ++i) {
      if (domain.poll_state(state)) return 3;
    }
    domain.unlock(token);
    domain.cond_synchronize(state);
    return domain.reader_count() == 0 ? 0 : 4;
  };
  EXPECT_EQ(in_child(child), 0);
  EXPECT_EQ(in_child([&] { return in_child(child); }), 0);  // a grandchild
  domain.unlock(inner);
  domain.unlock(token);
  domain.synchronize();
}

TEST(SrcuFork, AForkAmidGracePeriodsAndCallbacks) {
  srcu_domain domain;
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    while (!stop) domain.synchronize();
  });
  threads.emplace_back([&] {
    while (!stop) {
      const srcu_section section(domain);
      domain.retire(new int(1));
    }
  });
  for (int i = 0; i < 30; ++i) {
    EXPECT_EQ(in_child([&] {
                domain.synchronize();
                return domain.reader_count() == 0 ? 0 : 1;
              }),
              0);
  }
  stop = true;
  for (auto& thread : threads) thread.join();
}

// The thread that makes a domain the child's own is the one that a handler interrupts.
TEST(SrcuFork, AHandlerMayInterruptTheFirstUseOfADomainInAChild) {
  if (detail::kInstrumented) GTEST_SKIP() << "ThreadSanitizer: no threads in the child";
  static srcu_domain* handlers_domain = nullptr;
  std::array<srcu_domain, 2000> domains;
  handlers_domain = domains.data();
  ASSERT_NE(std::signal(SIGUSR1, [](int) { const srcu_section section(*handlers_domain); }),
            SIG_ERR);
  EXPECT_EQ(in_child([&] {
              const pthread_t reader = ::pthread_self();
              std::atomic<bool> stop{false};
              std::thread sender([&] {
                while (!stop) ::pthread_kill(reader, SIGUSR1);
              });
              for (srcu_domain& domain : domains) {
                handlers_domain = &domain;
                const srcu_section section(domain);
              }
              stop = true;
              sender.join();
              return 0;
            }),
            0);
  std::signal(SIGUSR1, SIG_DFL);
}

}  // namespace
}  // namespace tandem::rcu
