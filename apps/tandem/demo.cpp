// SPDX-License-Identifier: Apache-2.0
/// tandem demo …, and the internal commands behind its processes.
#include "apps/tandem/demo.hpp"

#include <memory>

#include "apps/options/options.hpp"
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

void add_demo(const Command& app) {
  const Command demo = app.subcommand("demo", "Show what sharing, fork and PASIDs mean, live");
  demo.require_subcommand();
  demo.footer(
      "\nExamples:\n  tandem demo share\n  tandem demo fork\n  tandem demo pasid\n  tandem demo "
      "rcu\n  tandem demo kxo\n");

  auto settings = std::make_shared<ShareSettings>();
  const Command share = demo.subcommand("share", "Four tenants share a device, with fork and kill");
  share.option("FILE", settings->files, "files or directories; none: this machine's");
  share.flag("--embedded", settings->embedded, "tenants as threads, without a broker");
  share.option("--seconds", settings->seconds, "how long at least")
      .text("N [6]")
      .check(number_in(0.5, 86400.0));
  share.footer(kShareExamples);
  share.action([settings] { return demo_share(*settings); });

  const Command fork = demo.subcommand("fork", "What fork and exec do to an open device");
  fork.footer("\nExample:\n  tandem demo fork\n");
  fork.action(demo_fork);
  const Command pasid = demo.subcommand("pasid", "One page fault: its walk and its messages");
  pasid.footer("\nExample:\n  tandem demo pasid\n");
  pasid.action(demo_pasid);
  const Command rcu = demo.subcommand("rcu", "What RCU can do now, a checked line each");
  rcu.footer("\nExample:\n  tandem demo rcu\n");
  rcu.action(demo_rcu);
  const Command kxo = demo.subcommand("kxo", "64 boards of one device, each move checked");
  kxo.footer("\nExamples:\n  tandem demo kxo\n  TANDEM=embedded tandem demo kxo\n");
  kxo.action(demo_kxo);
}

void add_internal(const Command& app) {
  struct Arguments {
    std::string corpus;
    int fd = -1, other_fd = -1;
    unsigned number = 0;
  };
  auto arguments = std::make_shared<Arguments>();
  const Command tenant = app.subcommand("internal-tenant", "");
  tenant.hidden();
  tenant.option("--board-fd", arguments->fd, "").required();
  tenant.option("--number", arguments->number, "").required();
  tenant.option("--corpus", arguments->corpus, "").required();
  tenant.action([arguments] {
    return run_tenant_process(arguments->fd, arguments->number, arguments->corpus);
  });
  const Command probe = app.subcommand("internal-exec-probe", "");
  probe.hidden();
  probe.option("--ready-fd", arguments->fd, "").required();
  probe.option("--go-fd", arguments->other_fd, "").required();
  probe.action([arguments] { return run_exec_probe(arguments->fd, arguments->other_fd); });
}

}  // namespace tandem::cli
