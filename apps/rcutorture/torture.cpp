// SPDX-License-Identifier: Apache-2.0
#include "torture.hpp"

#include <unistd.h>

#include <chrono>
#include <cinttypes>
#include <iterator>
#include <optional>

#include "parcel.hpp"
#include "rcu_extras.hpp"
#include "rcu_flavour.hpp"
#include "session.hpp"
#include "srcu_flavour.hpp"
#include "tally.hpp"
#include "tandem/rcu/detail/reader.hpp"
#include "tasks_flavour.hpp"
#include "team.hpp"

namespace tandem::rcutorture {
namespace {

template <class Flavour>
bool torture_one(const Options& options, double seconds, std::FILE* report) {
  if (report != nullptr) {
    std::fprintf(report, "tandem-rcutorture: %s: %.1f s, seed %" PRIu64 ", %u readers\n",
                 Flavour::kName, seconds, options.seed, options.readers);
    std::fflush(report);
  }
  typename Flavour::Domain domain;
  Tally tally;
  Team team(tally);
  Session<Flavour> session(domain, options, tally, team);
  session.add_threads();
  std::optional<RcuExtras> extras;
  if constexpr (Flavour::kIsRcuDomain) {
    extras.emplace(domain, options, tally, team, session.element());
    extras->add_threads();
  }
  team.run(std::chrono::duration<double>(seconds));
  session.finish();
  if (report != nullptr) {
    tally.print(report, /*all=*/true);
  } else if (tally.failures() != 0) {
    tally.print(stderr, /*all=*/false);
  }
  return tally.failures() == 0;
}

struct Choice {
  const char* name;
  bool (*run)(const Options& options, double seconds, std::FILE* report);
};

template <class Flavour>
constexpr Choice choice() {
  return {Flavour::kName, torture_one<Flavour>};
}

constexpr Choice kChoices[] = {
    choice<RcuFlavour<kPlain | kFenced | kQuiescent>>(),
    choice<RcuFlavour<kFenced>>(),
    choice<RcuFlavour<kQuiescent>>(),
    choice<SrcuFlavour>(),
    choice<TasksFlavour<rcu::tasks_domain>>(),
    choice<TasksFlavour<rcu::tasks_rude_domain>>(),
    choice<TasksFlavour<rcu::tasks_trace_domain>>(),
};

}  // namespace

std::vector<std::string> domain_names() {
  std::vector<std::string> names;
  for (const Choice& choice : kChoices) names.emplace_back(choice.name);
  return names;
}

bool torture(const Options& wanted, std::FILE* report) {
  Options options = wanted;
#if defined(__SANITIZE_ADDRESS__)
  const char* const no_forks = "children hang under AddressSanitizer";
#else
  const char* const no_forks =
      rcu::detail::kInstrumented ? "ThreadSanitizer starts no threads in the child" : nullptr;
#endif
  if (no_forks != nullptr && options.forks) {
    std::fprintf(stderr, "tandem-rcutorture: forks are skipped: %s\n", no_forks);
    options.forks = false;
  }
  current_process.store(::getpid());
  const bool all = options.domain == "all";
  const double seconds =
      all ? options.seconds / static_cast<double>(std::size(kChoices)) : options.seconds;
  bool fine = true;
  for (const Choice& choice : kChoices) {
    if (all || options.domain == choice.name) fine = choice.run(options, seconds, report) && fine;
  }
  if (report != nullptr) {
    std::fprintf(report, "tandem-rcutorture: %s\n", fine ? "SUCCESS" : "FAILURE");
  }
  return fine;
}

}  // namespace tandem::rcutorture
