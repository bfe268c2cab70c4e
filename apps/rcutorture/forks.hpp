// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <optional>
#include <thread>

#include "options.hpp"
#include "parcel.hpp"
#include "random.hpp"
#include "tally.hpp"
#include "team.hpp"

namespace tandem::rcutorture {

/// Forks amid the torture: each child tortures its parent's domain for a short time.
template <class Flavour>
class Forks {
 public:
  using Domain = typename Flavour::Domain;
  using Reader = typename Flavour::Reader;

  Forks(Domain& domain, const Options& options, Team& team, Line& line)
      : domain_(domain), options_(options), team_(team), line_(line) {}

  void run() {
    Random random(options_.seed, "forks", 0);
    Ledger ledger(line_);
    while (!team_.should_stop()) {
      for (unsigned i = random.below(20); i != 0; --i) Flavour::post(domain_, ledger, random);
      const unsigned number = random.below(1u << 20);
      judge(random.one_in(2) ? fork_in_a_section(number) : fork(number, nullptr));
      line_.worked();
    }
    Flavour::barrier(domain_);
    if (ledger.waiting() != 0) line_.fail("a barrier returned before a callback had run");
  }

 private:
  enum ExitCode { kFine = 0, kEarly = 1, kInherited = 2, kNoGrandchild = 3 };
  static constexpr unsigned kHangs = 60;  // seconds
  static constexpr int kRounds = 5;

  pid_t fork(unsigned number, Reader* open) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(in_child(number, open));
    return child;
  }
  pid_t fork_in_a_section(unsigned number) {
    Random random(options_.seed, "forking reader", number);
    Reader reader(domain_, number);
    reader.enter(random);
    const pid_t child = fork(number, &reader);
    reader.leave(random);
    return child;
  }
  void judge(pid_t child) {
    int status = -1;
    if (child < 0 || ::waitpid(child, &status, 0) != child) {
      line_.fail("no child could be made");
    } else if (WIFSIGNALED(status)) {
      line_.fail(WTERMSIG(status) == SIGALRM ? "a child hung" : "a child was killed");
    } else if (WEXITSTATUS(status) == kInherited) {
      line_.fail("a child ran its parent's callback");
    } else if (WEXITSTATUS(status) == kNoGrandchild) {
      line_.fail("a child's child hung or failed");
    } else if (WEXITSTATUS(status) != kFine) {
      line_.fail("a grace period or a barrier was over early in a child");
    }
  }

  static void become_child() {
    current_process.store(::getpid());
    ::alarm(kHangs);
  }

  /// `open`: what the thread that forked is in a section of, or null.
  ExitCode in_child(unsigned number, Reader* open) {
    become_child();
    Random random(options_.seed, "child", number);
    Line line("child");
    std::atomic<bool> stop{false};
    std::thread other([&] {
      Random mine(options_.seed, "child's reader", number);
      Reader its_own(domain_, number + 1);
      while (!stop.load(std::memory_order_relaxed)) {
        its_own.enter(mine);
        mine.delay();
        its_own.leave(mine);
      }
    });
    std::optional<Reader> own;
    Reader& reader = open != nullptr ? *open : own.emplace(domain_, number);
    if (open != nullptr) end_section(reader, random, line);
    for (int i = 0; i < kRounds && line.failures.load() == 0; ++i) round(reader, random, line);
    ExitCode result = line.failures.load() == 0 ? kFine : kEarly;
    if (result == kFine && random.one_in(4)) {
      const pid_t grandchild = ::fork();
      if (grandchild == 0) {
        become_child();
        round(reader, random, line);
        ::_exit(line.failures.load() == 0 ? kFine : kEarly);
      }
      int status = -1;
      if (::waitpid(grandchild, &status, 0) != grandchild || status != 0) result = kNoGrandchild;
    }
    stop.store(true);
    other.join();
    return inherited_callbacks.load() != 0 ? kInherited : result;
  }

  /// The section goes on in the child: what is handed in there waits for its end.
  void end_section(Reader& open, Random& random, Line& line) {
    Ledger ledger(line);
    Flavour::post(domain_, ledger, random);
    if (random.one_in(2)) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    if (!Flavour::kCallEndsSections && ledger.ran.load() != 0) {
      line.fail("a section that was open at the fork held nothing up");
    }
    open.leave(random);
    Flavour::barrier(domain_);
    if (ledger.waiting() != 0) line.fail("a barrier returned early");
  }

  void round(Reader& reader, Random& random, Line& line) {
    Ledger ledger(line);
    for (unsigned i = random.below(50); i != 0; --i) {
      const bool inside = random.one_in(2);
      if (inside) reader.enter(random);
      Flavour::post(domain_, ledger, random);
      if (inside) reader.leave(random);
    }
    if constexpr (requires { reader.rest(); }) reader.rest();
    const auto kinds = Flavour::grace_periods();
    kinds[random.below(kinds.size())].run(domain_, random);
    Flavour::barrier(domain_);
    if (ledger.waiting() != 0) line.fail("a barrier returned early");
  }

  Domain& domain_;
  const Options& options_;
  Team& team_;
  Line& line_;
};

}  // namespace tandem::rcutorture
