// SPDX-License-Identifier: Apache-2.0
/// tandem-rcutorture: everything that tandem::rcu promises, at once, for as long as you like.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "options.hpp"
#include "torture.hpp"

namespace {

enum ExitCode { kOk = 0, kFailure = 1, kUsage = 2 };

constexpr const char* kFooter =
    "Each domain's report has a line for each kind of thread and of grace period: operations, "
    "grace\n"
    "periods, the greatest age at which a reader saw an element (2 is a failure), callbacks,\n"
    "failures. 'ages seen' counts elements by age, from 0. Exit status: 0, or 1 when something\n"
    "failed. The same seed makes the same choices; the machine adds the interleaving.";

int run(int argc, char** argv) {
  CLI::App app("Tortures tandem::rcu, in the spirit of the kernel's rcutorture.",
               "tandem-rcutorture");
  app.footer(kFooter);
  tandem::rcutorture::Options options;
  std::vector<std::string> domains = tandem::rcutorture::domain_names();
  domains.emplace_back("all");
  bool quiet = false;
  app.add_option("--seconds", options.seconds, "how long, all domains together")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--seed", options.seed, "of all choices")->capture_default_str();
  app.add_option("--readers", options.readers, "pipe-count readers")
      ->check(CLI::Range(1u, 1024u))
      ->capture_default_str();
  app.add_option("--domain", options.domain, "what to torture")
      ->check(CLI::IsMember(domains))
      ->capture_default_str();
  app.add_flag("!--no-barriers", options.barriers, "no barrier torture");
  app.add_flag("!--no-churn", options.churn, "no threads that come and go");
  app.add_flag("!--no-domains", options.domains, "no domains that come and go");
  app.add_flag("!--no-floods", options.floods, "no floods of callbacks");
  app.add_flag("!--no-forks", options.forks, "no forks");
  app.add_flag("!--no-offload", options.offload, "no switching of offloading");
  app.add_flag("!--no-signals", options.signals, "no signal handlers that read and poll");
  app.add_flag("!--no-stalls", options.stalls, "no readers that stall");
  app.add_flag("-q,--quiet", quiet, "print failures only");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::fprintf(stderr, "tandem: rcutorture: %s; try: tandem-rcutorture --help\n", error.what());
    return kUsage;
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
