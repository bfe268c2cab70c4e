// SPDX-License-Identifier: Apache-2.0
/// tandem trace: its options. What it does is in trace_run.cpp.
#include <CLI/CLI.hpp>
#include <memory>

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

void add_trace(CLI::App& app, Registry& registry) {
  auto settings = std::make_shared<TraceSettings>();
  CLI::App* trace = app.add_subcommand("trace", "Run a command and show what the cores did");
  trace->add_option("-o,--output", settings->output, "Perfetto's native format")
      ->option_text("FILE");
  trace->add_option("--html", settings->html, "one self-contained page")->option_text("FILE");
  trace->add_option("--svg", settings->svg, "the page's picture alone")->option_text("FILE");
  trace->add_option("--categories", settings->categories, "what to record")
      ->option_text("A,B [all]");
  trace->add_option("--events", settings->entries, "how many events a thread keeps")
      ->option_text("N [32768]")
      ->check(CLI::Range(64U, 4194304U));
  trace->add_flag("--no-sched", settings->no_sched, "without the scheduler's view");
  trace->add_option("COMMAND", settings->command, "what to run, with its arguments")->required();
  trace->footer(std::string(kExamples));
  registry.emplace_back(trace, [settings] { return run_trace(*settings); });
}

}  // namespace tandem::cli
