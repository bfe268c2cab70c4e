// SPDX-License-Identifier: Apache-2.0
// What becomes of a thread's readers when it forks, ends, or is refused membarrier().
#include "tandem/rcu/detail/process.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/syscall.h>

#include <cerrno>
#include <mutex>
#include <thread>

#include "tandem/base/test_sandbox.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/rcu/stats.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;
using detail::in_child;

TEST(RcuSandbox, ReadersMakeTheirOwnFencesOnceTheKernelRefusesMembarrier) {
  if (detail::kInstrumented) GTEST_SKIP() << "ThreadSanitizer: they always do";
  if (!stats(rcu_default_domain()).light_readers) GTEST_SKIP() << "no membarrier";
  EXPECT_EQ(in_child([] {
              rcu_domain domain;
              detail::Occupant other(domain);  // a plain reader to be fenced
              { const std::scoped_lock section(domain); }
              if (!stats(domain).light_readers) return 1;
              if (!refuse_system_call(SYS_membarrier, EPERM)) return 77;
              const detail::Waiter waiter([&] { rcu_synchronize(domain); });
              detail::wait_until([&] { return !stats(domain).light_readers; });
              if (waiter.returned()) return 2;
              { const std::scoped_lock section(domain); }
              other.leave();
              waiter.wait();
              return 0;
            }),
            0);
}

}  // namespace
}  // namespace tandem::rcu
