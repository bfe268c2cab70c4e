// SPDX-License-Identifier: Apache-2.0
/// tandem devices.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "apps/options/options.hpp"
#include "apps/tandem/cli.hpp"
#include "tandem/abi/control.h"
#include "tandem/wd/wd.h"

namespace tandem::cli {
namespace {

constexpr std::string_view kExamples = R"(
Examples:
  tandem devices
  tandem devices --json | jq '.devices[].name'
  TANDEM=unix:/run/tandem/broker.sock tandem devices

JSON: {"schema": 1, "devices": [...]}, numbers as numbers, null for unknown.
)";

std::vector<std::string> lines_of(const char* text) {
  std::vector<std::string> lines;
  std::istringstream stream{std::string(text)};
  for (std::string line; std::getline(stream, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

nlohmann::ordered_json to_json(const wd_device& device) {
  nlohmann::ordered_json json;
  json["name"] = device.name;
  json["api"] = device.api;
  json["algorithms"] = lines_of(device.algorithms);
  json["sva"] = (device.flags & TANDEM_DEVICE_SVA) != 0;
  json["numa_node"] = device.numa_node < 0 ? nlohmann::ordered_json(nullptr)
                                           : nlohmann::ordered_json(device.numa_node);
  json["queues_used"] = device.queues_used;
  json["queues_max"] = device.queues_max;
  json["clients"] = device.clients;
  json["engines"] = device.engines;
  json["operations"] = device.operations;
  json["bytes_read"] = device.bytes;
  json["region_mmio_bytes"] = device.region_mmio_size;
  json["region_dus_bytes"] = device.region_dus_size;
  json["state"] = "ready";
  return json;
}

int run(bool as_json) {
  std::vector<wd_device> devices(16);
  int count = wd_list_devices(WD_PATH_AUTO, devices.data(), static_cast<unsigned>(devices.size()));
  if (count < 0) return report(from_wd("listing devices", count));
  if (static_cast<std::size_t>(count) > devices.size()) {
    devices.resize(static_cast<std::size_t>(count));
    count = wd_list_devices(WD_PATH_AUTO, devices.data(), static_cast<unsigned>(devices.size()));
    if (count < 0) return report(from_wd("listing devices", count));
  }
  devices.resize(std::min(devices.size(), static_cast<std::size_t>(count)));
  if (as_json) {
    nlohmann::ordered_json json;
    json["schema"] = 1;
    json["devices"] = nlohmann::ordered_json::array();
    for (const auto& device : devices) json["devices"].push_back(to_json(device));
    fmt::print("{}\n", json.dump(2));
    return kOk;
  }
  Table table({"device", "queues", "clients", "engines", "operations", "read", "NUMA", "SVA"});
  for (const auto& device : devices) {
    table.add({device.name, fmt::format("{}/{}", device.queues_used, device.queues_max),
               fmt::format("{}", device.clients), fmt::format("{}", device.engines),
               human_count(device.operations), human_bytes(static_cast<double>(device.bytes)),
               device.numa_node < 0 ? "-" : fmt::format("{}", device.numa_node),
               (device.flags & TANDEM_DEVICE_SVA) != 0 ? "yes" : "no"});
  }
  table.print();
  fmt::print("\n");
  for (const auto& device : devices) {
    fmt::print("{}: {}\n", device.name, fmt::join(lines_of(device.algorithms), ", "));
  }
  return kOk;
}

}  // namespace

void add_devices(const Command& app) {
  auto as_json = std::make_shared<bool>(false);
  const Command command = app.subcommand("devices", "List the devices, what they do and who is on");
  command.flag("--json", *as_json, "as JSON");
  command.footer(kExamples);
  command.action([as_json] { return run(*as_json); });
}

}  // namespace tandem::cli
