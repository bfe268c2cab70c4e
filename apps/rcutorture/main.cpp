// SPDX-License-Identifier: Apache-2.0
/// tandem-rcutorture: everything that tandem::rcu promises, at once, for as long as you like.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "apps/options/options.hpp"
#include "options.hpp"
#include "torture.hpp"

namespace {

using namespace tandem::cli;

enum ExitCode { kOk = 0, kFailure = 1, kUsage = 2 };

constexpr const char* kFooter =
    "Each domain's report has a line for each kind of thread and of grace period: operations, "
    "grace\n"
    "periods, the greatest age at which a reader saw an element (2 is a failure), callbacks,\n"
    "failures. 'ages seen' counts elements by age, from 0. Exit status: 0, or 1 when something\n"
    "failed. The same seed makes the same choices; the machine adds the interleaving.";

int run(int argc, char** argv) {
  tandem::cli::Program app("tandem-rcutorture",
                           "Tortures tandem::rcu, in the spirit of the kernel's rcutorture.");
  app.footer(kFooter);
  tandem::rcutorture::Options options;
  std::vector<std::string> domains = tandem::rcutorture::domain_names();
  domains.emplace_back("all");
  bool quiet = false;
  app.option("--seconds", options.seconds, "how long, all domains together")
      .text(fmt::format("S [{}]", options.seconds))
      .check(number_in(0.001, 1e9));
  app.option("--seed", options.seed, "of all choices")
      .text(fmt::format("N [{}]", options.seed))
      .check(whole_number());
  app.option("--readers", options.readers, "pipe-count readers")
      .text(fmt::format("N [{}]", options.readers))
      .check(whole_number(1, 1024));
  app.option("--domain", options.domain, "what to torture")
      .text(fmt::format("{} [{}]", fmt::join(domains, "|"), options.domain))
      .check(one_of(domains));
  app.flag("!--no-barriers", options.barriers, "no barrier torture");
  app.flag("!--no-churn", options.churn, "no threads that come and go");
  app.flag("!--no-domains", options.domains, "no domains that come and go");
  app.flag("!--no-floods", options.floods, "no floods of callbacks");
  app.flag("!--no-forks", options.forks, "no forks");
  app.flag("!--no-offload", options.offload, "no switching of offloading");
  app.flag("!--no-signals", options.signals, "no signal handlers that read and poll");
  app.flag("!--no-stalls", options.stalls, "no readers that stall");
  app.flag("-q,--quiet", quiet, "print failures only");
  const auto parsed = app.parse(argc, argv);
  if (!parsed) {
    if (!parsed.done) fmt::print(stderr, "tandem: rcutorture: {}\n", parsed.wrong);
    return parsed.done ? kOk : kUsage;
  }
  return tandem::rcutorture::torture(options, quiet ? nullptr : stdout) ? kOk : kFailure;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tandem: rcutorture: %s\n", error.what());
    return kFailure;
  }
}
