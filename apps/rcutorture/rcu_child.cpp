// SPDX-License-Identifier: Apache-2.0
// A short torture in a forked child, with a domain that its parent was torturing.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <optional>
#include <thread>

#include "parcel.hpp"
#include "random.hpp"
#include "rcu_extras.hpp"
#include "rcu_flavour.hpp"
#include "tandem/rcu/detail/reader.hpp"

namespace tandem::rcutorture {
namespace {

constexpr unsigned kHangs = 60;  // seconds
constexpr int kRounds = 5;

bool round(rcu::rcu_domain& domain, Line& line, Random& random) {
  Ledger ledger(line);
  for (unsigned i = random.below(50); i != 0; --i) {
    if (random.one_in(2)) {
      const std::scoped_lock section(domain);
      post_rcu_parcel(domain, ledger, random);
    } else {
      post_rcu_parcel(domain, ledger, random);
    }
  }
  const auto kinds = rcu_grace_periods();
  kinds[random.below(kinds.size())].run(domain, random);
  rcu::rcu_barrier(domain);
  return ledger.waiting() == 0;
}

}  // namespace

int torture_child(rcu::rcu_domain& domain, const Options& options, unsigned number, bool open) {
  current_process.store(::getpid());
  ::alarm(kHangs);
  Random random(options.seed, "child", number);
  Line line("child");
  std::atomic<bool> stop{false};
  std::optional<std::thread> reader;
  // ThreadSanitizer starts no threads in the child of a process that had several.
  if (!rcu::detail::kInstrumented) {
    reader.emplace([&] {
      while (!stop.load(std::memory_order_relaxed)) const std::scoped_lock section(domain);
    });
  }
  if (open) {
    // The section goes on here: what is retired in it waits for its end.
    Ledger ledger(line);
    retire_rcu_parcel(domain, ledger, random);
    if (random.one_in(2)) std::this_thread::yield();
    if (ledger.ran.load() != 0) line.fail("a section that was open at the fork held nothing up");
    domain.unlock();
    rcu::rcu_barrier(domain);
    if (ledger.waiting() != 0) line.fail("a barrier returned early");
  }
  bool fine = true;
  for (int i = 0; i < kRounds && fine; ++i) fine = round(domain, line, random);
  if (fine && random.one_in(4)) {
    const pid_t grandchild = ::fork();
    if (grandchild == 0) {
      current_process.store(::getpid());
      ::_exit(round(domain, line, random) ? 0 : 1);
    }
    int status = -1;
    fine = ::waitpid(grandchild, &status, 0) == grandchild && status == 0;
  }
  stop.store(true);
  if (reader) reader->join();
  if (inherited_callbacks.load() != 0) return 2;
  return fine && line.failures.load() == 0 ? 0 : 1;
}

}  // namespace tandem::rcutorture
