// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "apps/options/options.hpp"
#include "bench/harness.hpp"

int main(int argc, char** argv) {
  using namespace tandem::bench;
  const std::vector<Area> areas = {ring_area(),  comp_area(), rcu_area(),
                                   iommu_area(), kxo_area(),  trace_area()};
  tandem::cli::Program app(
      "tandem bench", "Measures Tandem and what people would use instead, in turn, in one run.");
  Options options;
  std::string wanted;
  std::string help = "what to measure:";
  for (const Area& area : areas) help += fmt::format("\n  {}: {}", area.name, area.what);
  app.option("AREA", wanted, help).required();
  app.flag("--quick", options.quick, "fewer and shorter samples, within 60 s");
  app.option("--json", options.json_path, "write the results").text("FILE");
  app.option("--svg", options.svg_path, "draw the results (rcu: locks against RCU)").text("FILE");
  app.option("--only", options.only, "only the cases whose name contains this").text("TEXT");
  app.footer(
      "\nExamples:\n  tandem bench ring --quick\n  tandem bench comp --json comp.json\n"
      "Exit status 1: a target was missed that docs/performance.md does not explain.");
  const auto parsed = app.parse(argc, argv);
  if (!parsed) {
    if (!parsed.done) fmt::print(stderr, "tandem: bench: {}\n", parsed.wrong);
    return parsed.done ? 0 : 2;
  }
  for (const Area& area : areas) {
    if (area.name == wanted) return run_area(area, options);
  }
  fmt::print(stderr, "tandem: bench: no area '{}'; try: tandem bench --help\n", wanted);
  return 2;
}
