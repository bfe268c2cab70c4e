// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "forks.hpp"
#include "options.hpp"
#include "parcel.hpp"
#include "pipe.hpp"
#include "random.hpp"
#include "signals.hpp"
#include "tally.hpp"
#include "team.hpp"

namespace tandem::rcutorture {

/// What every kind of domain is tortured with: pipe-count readers, writers, fake writers, floods,
/// barriers, threads that come and go, forks.
template <class Flavour>
class Session {
 public:
  using Domain = typename Flavour::Domain;
  using GracePeriod = typename Flavour::GracePeriod;

  Session(Domain& domain, const Options& options, Tally& tally, Team& team)
      : domain_(domain), options_(options), tally_(tally), team_(team) {
    for (unsigned i = 0; i < kPipes; ++i) {
      pipes_.push_back(
          std::make_unique<Pipe<Flavour>>(domain_, tally_.line(std::string("pipe callbacks"))));
    }
  }

  void add_threads() {
    for (unsigned i = 0; i < options_.readers; ++i) {
      team_.add("reader " + std::to_string(i), [this, i] { read(i); });
    }
    for (unsigned i = 0; i < kPipes; ++i) {
      team_.add("writer " + std::to_string(i), [this, i] { write(i); });
      team_.add("fake writer " + std::to_string(i), [this, i] { write_nothing(i); });
    }
    if (options_.floods) team_.add("flood", [this] { flood(); });
    if (options_.barriers) team_.add("barrier", [this] { barrier(); });
    if (options_.churn) team_.add("thread churn", [this] { churn(); });
    if (options_.forks) {
      team_.add("forks",
                [this] { Forks<Flavour>(domain_, options_, team_, tally_.line("forks")).run(); });
    }
  }

  /// A section on the calling thread, with a look at an element.
  template <class Reader>
  void section(Reader& reader, Random& random, Sightings& seen, Line& line) {
    reader.enter(random);
    const Sighting sighting(pipes_[random.below(kPipes)]->current, line);
    random.delay();
    if constexpr (requires { reader.hand_over(random); }) {
      reader.hand_over(random);
      sighting.check();
      random.delay();
    }
    sighting.end(seen);
    reader.leave(random);
  }
  const std::atomic<Element*>& element() const noexcept { return pipes_[0]->current; }

  /// Once the threads have ended: what is left of the callbacks runs, and what those hand in.
  void finish() {
    for (unsigned stage = 0; stage <= kStages; ++stage) Flavour::barrier(domain_);
  }

 private:
  static constexpr unsigned kPipes = 2;
  /// What may wait at once, in bytes: 16 MiB and what threads that are slowed down add.
  static constexpr std::uint64_t kFloodMax = std::uint64_t{32} << 20;

  const GracePeriod& any_grace_period(Random& random) {
    const auto all = Flavour::grace_periods();
    return all[random.below(all.size())];
  }

  void read(unsigned number) {
    Random random(options_.seed, "reader", number);
    typename Flavour::Reader reader(domain_, number);
    Line& line = tally_.line(reader.name());
    Sightings seen;
    section(reader, random, seen, line);  // handlers enter domains where their thread has been
    const Signalled signalled;
    while (!team_.should_stop()) {
      section(reader, random, seen, line);
      if (!random.one_in(512)) continue;
      const GracePeriod& kind = any_grace_period(random);
      if constexpr (requires { reader.rest(); }) {
        if (kind.polls) reader.rest();
      }
      kind.run(domain_, random);
    }
    seen.add_to(tally_, line);
  }

  void write(unsigned number) {
    Random random(options_.seed, "writer", number);
    {
      typename Flavour::Reader reader(domain_, number);
      Sightings seen;
      section(reader, random, seen, tally_.line(reader.name()));
    }
    const Signalled signalled;
    while (!team_.should_stop()) {
      const GracePeriod& kind = any_grace_period(random);
      pipes_[number]->update(random, kind, tally_.line(kind.name));
    }
  }

  void write_nothing(unsigned number) {
    Random random(options_.seed, "fake writer", number);
    Line& line = tally_.line("fake writers");
    while (!team_.should_stop()) {
      random.delay();
      any_grace_period(random).run(domain_, random);
      line.worked();
      line.grace_periods.fetch_add(1, std::memory_order_relaxed);
    }
  }

  void flood() {
    Random random(options_.seed, "flood", 0);
    Line& line = tally_.line("floods");
    Ledger ledger(line);
    std::uint64_t most = 0;
    while (!team_.should_stop()) {
      const unsigned burst = 1 + random.below(50'000);
      for (unsigned i = 0; i < burst && !team_.should_stop(); ++i) {
        Flavour::post(domain_, ledger, random);
        most = std::max(most, ledger.waiting() * sizeof(Parcel));
      }
      line.worked(burst);
      std::this_thread::sleep_for(std::chrono::microseconds(random.below(2000)));
    }
    if (most > kFloodMax) line.fail("a flood grew beyond its bound");
    Flavour::barrier(domain_);
    if (ledger.waiting() != 0) line.fail("a barrier returned before a callback had run");
  }

  void barrier() {
    Random random(options_.seed, "barrier", 0);
    Line& line = tally_.line("barriers");
    while (!team_.should_stop()) {
      Ledger ledger(line);
      const auto post = [this, &ledger](unsigned count, unsigned seed) {
        Random mine(options_.seed, "poster", seed);
        for (unsigned i = 0; i < count; ++i) Flavour::post(domain_, ledger, mine);
      };
      // Also from a thread that has ended by then.
      if (random.one_in(8)) std::thread(post, random.below(50), random.below(1000)).join();
      post(random.below(50), random.below(1000));
      Flavour::barrier(domain_);
      line.worked();
      if (ledger.waiting() == 0) continue;
      line.fail("a barrier returned before a callback had run");
      while (ledger.waiting() != 0) std::this_thread::yield();  // it refers to the ledger
    }
  }

  /// Threads that start, read, hand something over to be deleted and exit.
  void churn() {
    Random random(options_.seed, "churn", 0);
    Line& line = tally_.line("thread churn");
    Ledger ledger(line);
    while (!team_.should_stop()) {
      const unsigned number = random.below(1u << 20);
      std::thread([this, number, &line, &ledger] {
        Random mine(options_.seed, "churned", number);
        Sightings seen;
        {
          typename Flavour::Reader reader(domain_, number);
          for (unsigned i = mine.below(20); i != 0; --i) section(reader, mine, seen, line);
        }
        for (unsigned i = mine.below(5); i != 0; --i) Flavour::post(domain_, ledger, mine);
        if constexpr (requires { Flavour::exit_inside_a_section(domain_); }) {
          if (mine.one_in(4)) Flavour::exit_inside_a_section(domain_);
        }
        seen.add_to(tally_, line);
      }).join();
    }
    Flavour::barrier(domain_);
    if (ledger.waiting() != 0) line.fail("a barrier returned before a callback had run");
  }

  Domain& domain_;
  const Options& options_;
  Tally& tally_;
  Team& team_;
  std::vector<std::unique_ptr<Pipe<Flavour>>> pipes_;
};

}  // namespace tandem::rcutorture
