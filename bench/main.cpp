// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "bench/harness.hpp"

int main(int argc, char** argv) {
  using namespace tandem::bench;
  const std::vector<Area> areas = {ring_area(),  comp_area(), rcu_area(),
                                   iommu_area(), kxo_area(),  trace_area()};
  CLI::App app{"Measures Tandem and what people would use instead, in turn, in one run.",
               "tandem bench"};
  Options options;
  std::string wanted;
  std::string help = "what to measure:";
  for (const Area& area : areas) help += fmt::format("\n  {}: {}", area.name, area.what);
  app.add_option("area", wanted, help)->required();
  app.add_flag("--quick", options.quick, "fewer and shorter samples, within 60 s");
  app.add_option("--json", options.json_path, "write the results to FILE");
  app.add_option("--svg", options.svg_path, "draw the results to FILE (rcu: locks against RCU)");
  app.add_option("--only", options.only, "only the cases whose name contains TEXT");
  app.footer(
      "Examples:\n  tandem bench ring --quick\n  tandem bench comp --json comp.json\n"
      "Exit status 1: a target was missed that docs/performance.md does not explain.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  for (const Area& area : areas) {
    if (area.name == wanted) return run_area(area, options);
  }
  fmt::print(stderr, "tandem: bench: no area '{}'; try: tandem bench --help\n", wanted);
  return 2;
}
