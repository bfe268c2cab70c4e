// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/registry.hpp"

#include <algorithm>
#include <cstring>
#include <set>

#include "tandem/uacce/detail/queue.hpp"

namespace tandem::uacce::detail {
namespace {

/// A name that a client can write in a message: not empty, fits with its end, no white space.
bool valid_name(const std::string& name) {
  return !name.empty() && name.size() < TANDEM_NAME_SIZE &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const auto& line : lines) {
    if (!text.empty()) text += '\n';
    text += line;
  }
  return text;
}

template <std::size_t N>
void copy_text(char (&to)[N], const std::string& from) {
  std::memcpy(to, from.data(), std::min(from.size(), N - 1));
}

}  // namespace

Device::Device(DeviceTraits traits, std::unique_ptr<Engine> engine,
               std::unique_ptr<pcie::Endpoint> endpoint, std::shared_ptr<Host> host)
    : traits_(std::move(traits)),
      host_(std::move(host)),
      engine_(std::move(engine)),
      endpoint_(std::move(endpoint)) {}

Device::~Device() { detach(); }

bool Device::offers(const std::string& algorithm_or_name) const {
  return traits_.name == algorithm_or_name ||
         std::find(traits_.algorithms.begin(), traits_.algorithms.end(), algorithm_or_name) !=
             traits_.algorithms.end();
}

Result<void> Device::add(Queue& queue, std::uint64_t client) {
  const MutexLock lock(mutex_);
  if (closed_.load(std::memory_order_relaxed)) return errno_error(ENODEV);
  if (queues_.size() >= traits_.queues_max) return errno_error(EMFILE);
  if (!traits_.sva) {
    for (const auto& [other, owner] : queues_) {
      if (owner != client) return errno_error(EBUSY);
    }
  }
  queues_.emplace(&queue, client);
  return {};
}

void Device::remove(Queue& queue) {
  const MutexLock lock(mutex_);
  if (queues_.erase(&queue) == 0) return;
  const QueueCounters::Values values = queue.counters().read();
  retired_operations_ += values.operations;
  retired_bytes_ += values.bytes_read;
}

std::uint32_t Device::queues_used() const {
  const MutexLock lock(mutex_);
  return static_cast<std::uint32_t>(queues_.size());
}

std::vector<std::shared_ptr<Queue>> Device::close() {
  const MutexLock lock(mutex_);
  closed_.store(true, std::memory_order_relaxed);
  std::vector<std::shared_ptr<Queue>> queues;
  for (const auto& [queue, client] : queues_) {
    if (auto alive = queue->weak_from_this().lock()) queues.push_back(std::move(alive));
  }
  return queues;
}

void Device::detach() {
  const MutexLock lock(mutex_);
  if (std::exchange(detached_, true)) return;
  host_->remove_endpoint(*endpoint_);
}

tandem_devices_reply Device::describe(std::uint32_t engines) const {
  const MutexLock lock(mutex_);
  tandem_devices_reply reply{};
  copy_text(reply.name, traits_.name);
  copy_text(reply.api, traits_.api);
  copy_text(reply.algorithms, joined(traits_.algorithms));
  reply.flags = flags();
  reply.numa_node = -1;
  reply.queues_max = traits_.queues_max;
  reply.queues_used = static_cast<std::uint32_t>(queues_.size());
  reply.engines = engines;
  reply.operations = retired_operations_;
  reply.bytes = retired_bytes_;
  reply.region_mmio_size = kPageSize;
  reply.region_dus_size = Queue::rings_region_size(TANDEM_DEFAULT_DEPTH);
  std::set<std::uint64_t> clients;
  for (const auto& [queue, client] : queues_) {
    clients.insert(client);
    const QueueCounters::Values values = queue->counters().read();
    reply.operations += values.operations;
    reply.bytes += values.bytes_read;
  }
  reply.clients = static_cast<std::uint32_t>(clients.size());
  return reply;
}

bool Registry::valid(const DeviceTraits& traits) {
  return valid_name(traits.name) && valid_name(traits.api) && !traits.algorithms.empty() &&
         std::all_of(traits.algorithms.begin(), traits.algorithms.end(), valid_name) &&
         joined(traits.algorithms).size() < TANDEM_ALGORITHMS_SIZE && traits.queues_max > 0;
}

Result<void> Registry::add(std::shared_ptr<Device> device) {
  if (!valid(device->traits())) return errno_error(EINVAL);
  const MutexLock lock(mutex_);
  for (const auto& other : devices_) {
    if (other->traits().name == device->traits().name) return errno_error(EEXIST);
  }
  devices_.push_back(std::move(device));
  return {};
}

Result<std::shared_ptr<Device>> Registry::take(const std::string& name) {
  const MutexLock lock(mutex_);
  for (auto at = devices_.begin(); at != devices_.end(); ++at) {
    if ((*at)->traits().name != name) continue;
    auto device = std::move(*at);
    devices_.erase(at);
    return device;
  }
  return errno_error(ENOENT);
}

Result<std::shared_ptr<Device>> Registry::by_name(const std::string& name) const {
  const MutexLock lock(mutex_);
  for (const auto& device : devices_) {
    if (device->traits().name == name) return device;
  }
  return errno_error(ENOENT);
}

Result<std::shared_ptr<Device>> Registry::find(const std::string& algorithm_or_name) const {
  if (auto named = by_name(algorithm_or_name)) return named;
  std::shared_ptr<Device> best;
  for (const auto& device : all()) {
    if (!device->offers(algorithm_or_name)) continue;
    if (!best || device->queues_used() < best->queues_used()) best = device;
  }
  if (!best) return errno_error(ENOENT);
  return best;
}

std::vector<std::shared_ptr<Device>> Registry::all() const {
  const MutexLock lock(mutex_);
  return devices_;
}

}  // namespace tandem::uacce::detail
