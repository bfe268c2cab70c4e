// SPDX-License-Identifier: Apache-2.0
/// tandem demo …, and the internal commands behind its processes.
#include "apps/tandem/demo.hpp"

#include <CLI/CLI.hpp>
#include <memory>

#include "apps/tandem/option_checks.hpp"
#include "apps/tandem/tenant.hpp"

namespace tandem::cli {
namespace {

constexpr std::string_view kShareExamples = R"(
Examples:
  tandem demo share                     files of this machine, for six seconds
  tandem demo share --seconds 30 *.iso  these files, until each has been through
  tandem demo share --embedded          tenants are threads, nobody is isolated

Exit status 0: every result was verified and every bad pointer faulted.
)";

}  // namespace

void add_demo(CLI::App& app, Registry& registry) {
  CLI::App* demo = app.add_subcommand("demo", "Show what sharing, fork and PASIDs mean, live");
  demo->require_subcommand(1);
  demo->footer(
      "\nExamples:\n  tandem demo share\n  tandem demo fork\n  tandem demo pasid\n  tandem demo "
      "rcu\n  tandem demo kxo\n");

  auto settings = std::make_shared<ShareSettings>();
  CLI::App* share =
      demo->add_subcommand("share", "Four tenants share a device, with fork and kill");
  share->add_option("FILE", settings->files, "files or directories; none: this machine's");
  share->add_flag("--embedded", settings->embedded, "tenants as threads, without a broker");
  share->add_option("--seconds", settings->seconds, "how long at least")
      ->option_text("N [6]")
      ->check(number_in(0.5, 86400.0));
  share->footer(std::string(kShareExamples));
  registry.emplace_back(share, [settings] { return demo_share(*settings); });

  CLI::App* fork = demo->add_subcommand("fork", "What fork and exec do to an open device");
  fork->footer("\nExample:\n  tandem demo fork\n");
  registry.emplace_back(fork, demo_fork);
  CLI::App* pasid = demo->add_subcommand("pasid", "One page fault: its walk and its messages");
  pasid->footer("\nExample:\n  tandem demo pasid\n");
  registry.emplace_back(pasid, demo_pasid);
  CLI::App* rcu = demo->add_subcommand("rcu", "What RCU can do now, a checked line each");
  rcu->footer("\nExample:\n  tandem demo rcu\n");
  registry.emplace_back(rcu, demo_rcu);
  CLI::App* kxo = demo->add_subcommand("kxo", "64 boards of one device, each move checked");
  kxo->footer("\nExamples:\n  tandem demo kxo\n  TANDEM=embedded tandem demo kxo\n");
  registry.emplace_back(kxo, demo_kxo);
}

void add_internal(CLI::App& app, Registry& registry) {
  struct Arguments {
    std::string corpus;
    int fd = -1, other_fd = -1;
    unsigned number = 0;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* tenant = app.add_subcommand("internal-tenant", "")->group("");
  tenant->add_option("--board-fd", arguments->fd)->required();
  tenant->add_option("--number", arguments->number)->required();
  tenant->add_option("--corpus", arguments->corpus)->required();
  registry.emplace_back(tenant, [arguments] {
    return run_tenant_process(arguments->fd, arguments->number, arguments->corpus);
  });
  CLI::App* probe = app.add_subcommand("internal-exec-probe", "")->group("");
  probe->add_option("--ready-fd", arguments->fd)->required();
  probe->add_option("--go-fd", arguments->other_fd)->required();
  registry.emplace_back(probe,
                        [arguments] { return run_exec_probe(arguments->fd, arguments->other_fd); });
}

}  // namespace tandem::cli
