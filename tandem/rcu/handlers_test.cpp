// SPDX-License-Identifier: Apache-2.0
// What signal handlers may call, in any of 300 domains, wherever they interrupt their thread:
// sections, and polled grace periods. They allocate nothing, wait for nothing, and are told the
// truth.
#include <gtest/gtest.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "tandem/rcu/call.hpp"
#include "tandem/rcu/detail/test_memory.hpp"
#include "tandem/rcu/detail/test_single_step.hpp"
#include "tandem/rcu/detail/test_threads.hpp"
#include "tandem/rcu/expedite.hpp"
#include "tandem/rcu/grace_period.hpp"
#include "tandem/rcu/srcu.hpp"

namespace tandem::rcu {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kDomains = 300;

/// What a thread does in one domain, in the words of both kinds.
class Plain {
 public:
  int lock() {
    domain_.lock();
    return 0;
  }
  void unlock(int) { domain_.unlock(); }
  void synchronize() { rcu_synchronize(domain_); }
  void synchronize_expedited() { rcu_synchronize_expedited(domain_); }
  gp_state get_state() { return rcu::get_state(domain_); }
  gp_state start_poll() { return rcu::start_poll(domain_); }
  gp_state start_poll_expedited() { return rcu::start_poll_expedited(domain_); }
  bool poll(gp_state state) { return rcu::poll_state(state, domain_); }
  void cond_synchronize(gp_state state) { rcu::cond_synchronize(state, domain_); }
  void start_worker() { ASSERT_TRUE(prepare_polling(domain_)); }
  void retire() { rcu_retire(new int, {}, domain_); }
  void barrier() { rcu_barrier(domain_); }

 private:
  rcu_domain domain_;
};

class Sleepable {
 public:
  int lock() { return domain_.lock(); }
  void unlock(int token) { domain_.unlock(token); }
  void synchronize() { domain_.synchronize(); }
  void synchronize_expedited() { domain_.synchronize_expedited(); }
  gp_state get_state() { return domain_.get_state(); }
  gp_state start_poll() { return domain_.start_poll(); }
  gp_state start_poll_expedited() { return domain_.start_poll(); }
  bool poll(gp_state state) { return domain_.poll_state(state); }
  void cond_synchronize(gp_state state) { domain_.cond_synchronize(state); }
  void start_worker() { ASSERT_TRUE(domain_.start_worker()); }
  void retire() { domain_.retire(new int); }
  void barrier() { domain_.barrier(); }

 private:
  srcu_domain domain_;
};

/// A domain, and what is known of it when a handler comes.
template <class Kind>
struct Known {
  Kind domain;
  volatile unsigned open = 0;             // sections of the tests' thread, surely
  std::array<int, 2> tokens{};            // theirs
  std::atomic<std::uint64_t> tenancy{0};  // not 0: another thread has one open, the same all along
  gp_state asked;                         // by a handler
};

struct Findings {
  long calls = 0;
  long wrong_answers = 0;
  long memory_calls = 0;
  long lost_errno = 0;
};
Findings found;

/// What the handler does with one domain.
template <class Kind>
void look(Known<Kind>& known) {
  Kind& domain = known.domain;
  const bool open = known.open > 0;
  const std::uint64_t tenancy = known.tenancy.load();
  const gp_state outer = found.calls % 2 == 0 ? domain.start_poll() : domain.start_poll_expedited();
  const bool outer_over = domain.poll(outer);
  const int token = domain.lock();
  const gp_state inner = domain.get_state();
  const bool inner_over = domain.poll(inner);
  domain.unlock(token);
  const bool same_tenant = tenancy != 0 && known.tenancy.load() == tenancy;
  if (outer_over && (open || same_tenant)) ++found.wrong_answers;
  if (inner_over) ++found.wrong_answers;
  known.asked = outer;
}

/// The domain that the thread is at, and one domain after the other.
template <class Kind>
struct Handler {
  static inline const std::vector<std::unique_ptr<Known<Kind>>>* all = nullptr;
  static inline Known<Kind>* here = nullptr;
  static inline std::size_t turn = 0;

  static void run() {
    const int before = errno;
    errno = -1;
    const std::uint64_t memory = detail::memory_calls;
    look(*here);
    look(*(*all)[turn++ % all->size()]);
    found.memory_calls += static_cast<long>(detail::memory_calls - memory);
    found.lost_errno += errno != -1;
    ++found.calls;
    errno = before;
  }
  static void on_signal(int) { run(); }
};

template <class Kind>
using Domains = std::vector<std::unique_ptr<Known<Kind>>>;

template <class Kind>
void make_domains(Domains<Kind>& all) {
  for (std::size_t i = 0; i < kDomains; ++i) {
    Kind& domain = all.emplace_back(std::make_unique<Known<Kind>>())->domain;
    domain.unlock(domain.lock());  // a thread's first section in an rcu_domain is no handler's
  }
  Handler<Kind>::all = &all;
  Handler<Kind>::here = all.front().get();
  Handler<Kind>::turn = 0;
  found = {};
}

template <class Kind>
void enter(Known<Kind>& known) {
  known.tokens[known.open] = known.domain.lock();
  known.open = known.open + 1;
}
template <class Kind>
void leave(Known<Kind>& known) {
  known.open = known.open - 1;
  known.domain.unlock(known.tokens[known.open]);
}

/// Every kind of operation on one domain in which the thread has no section.
template <class Kind>
std::vector<std::function<void()>> operations(Known<Kind>& known, bool has_worker) {
  Kind& domain = known.domain;
  std::vector<std::function<void()>> list = {
      [&] {
        enter(known);
        enter(known);
        leave(known);
        leave(known);
      },
      [&] { (void)domain.poll(domain.get_state()); },
      [&] { (void)domain.poll(domain.start_poll()); },
      [&] { (void)domain.poll(domain.start_poll_expedited()); },
      [&] { domain.synchronize(); },
      [&] { domain.synchronize_expedited(); },
      [&] { domain.cond_synchronize(domain.get_state()); },
  };
  if (has_worker) {
    list.emplace_back([&] { domain.retire(); });
    list.emplace_back([&] { domain.barrier(); });
  }
  return list;
}
void expect_nothing_found() {
  EXPECT_EQ(found.wrong_answers, 0);
  EXPECT_EQ(found.memory_calls, 0);
  EXPECT_EQ(found.lost_errno, 0);
}

/// The thread has a section open in every twentieth domain meanwhile.
template <class Kind>
void step_through_every_operation() {
  Domains<Kind> all;
  make_domains(all);
  for (std::size_t i = 0; i < kDomains; i += 20) enter(*all[i]);
  bool can_step = true;
  for (const bool has_worker : {false, true}) {
    Known<Kind>& known = *all[has_worker ? kDomains - 1 : 3];
    if (has_worker) known.domain.start_worker();
    Handler<Kind>::here = &known;
    for (const auto& operation : operations(known, has_worker)) {
      can_step = can_step && detail::step_through(Handler<Kind>::run, operation) != 0;
    }
    known.domain.synchronize();
    EXPECT_TRUE(known.domain.poll(known.asked) || !can_step);
  }
  for (std::size_t i = 0; i < kDomains; i += 20) {
    Known<Kind>& known = *all[i];
    EXPECT_FALSE(known.domain.poll(known.asked) && can_step);
    leave(known);
    known.domain.synchronize();
    EXPECT_TRUE(known.domain.poll(known.asked) || !can_step);
  }
  if (!can_step) GTEST_SKIP() << "no signal comes after each instruction here";
  expect_nothing_found();
  EXPECT_GT(found.calls, 1000);
}

TEST(Handlers, MayInterruptAPlainDomainAtEachInstruction) { step_through_every_operation<Plain>(); }

// A restartable sequence that is interrupted each time never ends: without them, then.
TEST(Handlers, MayInterruptASleepableDomainAtEachInstruction) {
  if (std::getenv("TANDEM_STEP") != nullptr) return step_through_every_operation<Sleepable>();
  EXPECT_EQ(detail::in_child([] {
              ::setenv("TANDEM_STEP", "1", 1);
              ::setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
              return ::execl("/proc/self/exe", "handlers",
                             "--gtest_filter=Handlers.MayInterruptASleepableDomain*", nullptr);
            }),
            0);
}

/// Signals come from another thread, and each operation goes on until it was met. A third thread
/// has sections, too.
template <class Kind>
void interrupt_every_operation() {
  Domains<Kind> all;
  make_domains(all);
  const std::array<std::size_t, 4> busy = {0, 100, 200, 299};  // the thread is at
  for (const std::size_t at : {0u, 200u}) all[at]->domain.start_worker();
  std::optional<detail::Interrupted> interrupted;
  interrupted.emplace(Handler<Kind>::on_signal, 20us, SA_RESTART);
  std::atomic<bool> stop{false};
  std::thread tenant([&] {
    std::uint64_t tenancies = 0;
    for (std::size_t i = 0; !stop; i = (i + 7) % kDomains) {
      Known<Kind>& known = *all[i];
      const int token = known.domain.lock();
      known.tenancy = ++tenancies;
      std::this_thread::sleep_for(50us);
      known.tenancy = 0;
      known.domain.unlock(token);
    }
  });
  for (int pass = 0; pass < 5; ++pass) {
    for (const std::size_t at : busy) {
      Known<Kind>& known = *all[at];
      Handler<Kind>::here = &known;
      for (const auto& operation : operations(known, at % 200 == 0)) {
        // Until it was interrupted; but ThreadSanitizer brings signals where it likes.
        const long calls = found.calls;
        int rounds = 0;
        do operation();
        while (detail::kInstrumented ? ++rounds < 100 : found.calls == calls);
      }
    }
  }
  stop = true;
  interrupted.reset();
  tenant.join();
  expect_nothing_found();
  for (const auto& known : all) {
    known->domain.synchronize();
    EXPECT_TRUE(known->domain.poll(known->asked));
  }
}

TEST(Handlers, MayInterruptEachOperationOfAPlainDomain) { interrupt_every_operation<Plain>(); }

TEST(Handlers, MayInterruptEachOperationOfASleepableDomain) {
  interrupt_every_operation<Sleepable>();
}

TEST(Handlers, MayBeTheFirstToUseADomain) {
  rcu_domain plain;
  srcu_domain sleepable;
  const std::uint64_t before = detail::memory_calls;
  const bool plain_over = poll_state(start_poll(plain), plain);
  const bool sleepable_over = sleepable.poll_state(sleepable.start_poll());
  EXPECT_EQ(detail::memory_calls, before);
  EXPECT_TRUE(plain_over);
  EXPECT_TRUE(sleepable_over);
}

}  // namespace
}  // namespace tandem::rcu
