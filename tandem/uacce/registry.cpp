// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/registry.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
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

Registry::~Registry() {
  devices_.for_each(/*condition=*/true,  // nobody else is left
                    [](Entry& entry) { delete &entry; });
}

Registry::Entry* Registry::entry(const std::string& name) const {
  for (Entry& entry : traverse(devices_, rcu::held(mutex_))) {
    if (entry.device->traits().name == name) return &entry;
  }
  return nullptr;
}

Result<void> Registry::add(std::shared_ptr<Device> device) {
  if (!valid(device->traits())) return errno_error(EINVAL);
  auto fresh = std::make_unique<Entry>(std::move(device));
  const MutexLock lock(mutex_);
  if (entry(fresh->device->traits().name) != nullptr) return errno_error(EEXIST);
  devices_.push_back(*fresh.release());
  return {};
}

Result<std::shared_ptr<Device>> Registry::take(const std::string& name) {
  std::unique_ptr<Entry> taken;
  {
    const MutexLock lock(mutex_);
    taken.reset(entry(name));
    if (!taken) return errno_error(ENOENT);
    devices_.erase(*taken);
  }
  // Not retired: the last reference to a device is not for a thread of the domain to drop.
  rcu::rcu_synchronize(devices_.domain());
  return taken->device;
}

Result<std::shared_ptr<Device>> Registry::by_name(const std::string& name) const {
  const std::scoped_lock section(devices_.domain());
  const Entry* const found = entry(name);
  if (found == nullptr) return errno_error(ENOENT);
  return found->device;
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
  const std::scoped_lock section(devices_.domain());
  std::vector<std::shared_ptr<Device>> devices;
  for (const Entry& entry : traverse(devices_)) devices.push_back(entry.device);
  return devices;
}

}  // namespace tandem::uacce::detail
