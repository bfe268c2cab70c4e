// SPDX-License-Identifier: Apache-2.0
/// tandem: the command. Each subcommand has its file; this one finds it.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <new>

#include "apps/options/options.hpp"
#include "apps/standard_descriptors.hpp"
#include "apps/tandem/cli.hpp"

namespace tandem::cli {
namespace {

constexpr std::string_view kExamples = R"(
Examples:
  tandem demo share           four tenants share one device, live
  tandem compress big.tar     like gzip, on the device
  tandem trace --html t.html -- demo share   what the cores did meanwhile
  tandem COMMAND --help       options and examples of one command

TANDEM=auto|embedded|inline|unix:PATH chooses where devices run; auto: a broker
that answers, else in the process. Exit status: 0 ok, 1 failure, 2 usage,
3 not found, 4 denied, 5 broker unreachable, 6 degraded.)";

constexpr std::string_view kNoBench = R"(Measure against other ways to do the same
Usage: tandem bench AREA [OPTIONS]

This is done by a program of its own, tandem-bench, which is neither beside
this one nor built: what it measures against are packages of their own, such as
liburcu and TBB. In a clone of the sources

  ./run bench --help

installs them, builds it and lists the areas. docs/performance.md
)";

/// The benchmarks are a program of their own, beside this one or in the build's bench directory.
int exec_bench(const std::vector<std::string>& arguments) {
  std::error_code error;
  const auto here = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  std::vector<std::string> copies{"tandem-bench"};
  copies.insert(copies.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (auto& copy : copies) argv.push_back(copy.data());
  argv.push_back(nullptr);
  for (const char* place : {"tandem-bench", "../../bench/tandem-bench"}) {
    const std::string path = here / place;
    ::execv(path.c_str(), argv.data());
    if (errno != ENOENT && errno != ENOTDIR) return report(from_errno(path, errno));
  }
  if (!arguments.empty() && (arguments.front() == "--help" || arguments.front() == "-h")) {
    fmt::print("{}", kNoBench);
    return kOk;
  }
  return report({kNotFound,
                 "bench: tandem-bench is neither beside this program nor built; try: ./run bench, "
                 "in a clone of the sources"});
}

int run(int argc, char** argv) {
  // "help COMMAND" is "COMMAND --help".
  if (argc >= 2 && std::string_view(argv[1]) == "help") {
    static char option[] = "--help";
    std::rotate(argv + 1, argv + 2, argv + argc);
    argv[argc - 1] = option;
  }
  // Its options are its own: nothing here may understand them differently.
  if (argc >= 2 && std::string_view(argv[1]) == "bench") {
    return exec_bench(std::vector<std::string>(argv + 2, argv + argc));
  }
  Program app("tandem", "An accelerator as another thread of your process.",
              "tandem " TANDEM_VERSION);
  app.footer(kExamples);
  app.help_column(20);
  add_demo(app);
  add_compress(app);
  add_devices(app);
  add_kxo(app);
  add_trace(app);
  app.subcommand("bench", "Measure against other ways to do the same");
  const Command version = app.subcommand("version", "Say the version");
  version.footer("\nExample:\n  tandem version\n");
  version.action([] {
    fmt::print("tandem " TANDEM_VERSION "\n");
    return kOk;
  });
  add_internal(app);
  if (argc < 2) {
    fmt::print("{}", app.help());
    return kOk;
  }
  const auto parsed = app.parse(argc, argv);
  if (!parsed) return parsed.done ? kOk : report({kUsage, parsed.wrong});
  const auto code = app.run();
  return code ? *code : report({kUsage, "no command; try: tandem --help"});
}

}  // namespace
}  // namespace tandem::cli

int main(int argc, char** argv) {
  if (!tandem::reserve_standard_descriptors()) return tandem::cli::kFailure;
  // A reader that has gone ends us quietly, even when our parent ignored the signal.
  std::signal(SIGPIPE, SIG_DFL);
  std::signal(SIGXFSZ, SIG_IGN);  // the write fails, and is told
  try {
    const int code = tandem::cli::run(argc, argv);
    // Data that did not get out is a failure, whatever the command thinks.
    if (std::fflush(stdout) != 0 && code == 0) {
      return tandem::cli::report(tandem::cli::from_errno("standard output", errno));
    }
    if (std::ferror(stdout) != 0 && code == 0) {
      return tandem::cli::report({tandem::cli::kFailure, "standard output: part of it was lost"});
    }
    return code;
  } catch (const std::bad_alloc&) {
    return tandem::cli::report(tandem::cli::from_errno("memory", ENOMEM));
  } catch (const std::exception& error) {
    return tandem::cli::report({tandem::cli::kFailure, error.what()});
  }
}
