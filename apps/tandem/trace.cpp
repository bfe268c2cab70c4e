// SPDX-License-Identifier: Apache-2.0
/// tandem trace: its options. What it does is in trace_run.cpp.
#include <memory>

#include "apps/options/options.hpp"
#include "apps/tandem/cli.hpp"
#include "apps/tandem/trace_run.hpp"

namespace tandem::cli {
namespace {

constexpr std::string_view kExamples = R"(
Examples:
  tandem trace -o share.pftrace --html share.html -- demo share
  tandem trace --svg share.svg --categories engine,fault -- demo share
  tandem trace -o app.pftrace -- ./my-program --its-options

Open a .pftrace at https://ui.perfetto.dev or with trace_processor. Categories:
engine, queue, fault, process, rcu, mark, kxo, all. With privilege the
scheduler's view of the command is in it too. COMMAND is a program, or one of
tandem's own commands. Exit status: the command's; 128 + N when signal N ended
it; as everywhere when it could not be run or the files not be written.)";

}  // namespace

void add_trace(const Command& app) {
  auto settings = std::make_shared<TraceSettings>();
  const Command trace = app.subcommand("trace", "Run a command and show what the cores did");
  trace.option("-o,--output", settings->output, "Perfetto's native format").text("FILE");
  trace.option("--html", settings->html, "one self-contained page").text("FILE");
  trace.option("--svg", settings->svg, "the page's picture alone").text("FILE");
  trace.option("--categories", settings->categories, "what to record").text("A,B [all]");
  trace.option("--events", settings->entries, "how many events a thread keeps")
      .text("N [32768]")
      .check(whole_number(64, 4194304));
  trace.flag("--no-sched", settings->no_sched, "without the scheduler's view");
  trace.option("COMMAND", settings->command, "what to run, with its arguments").required();
  trace.footer(kExamples);
  trace.action([settings] { return run_trace(*settings); });
}

}  // namespace tandem::cli
