// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "tandem/abi/control.h"
#include "tandem/base/mutex.hpp"
#include "tandem/rcu/list.hpp"
#include "tandem/uacce/detail/host.hpp"
#include "tandem/uacce/device.hpp"

namespace tandem::uacce::detail {

class Queue;

/// One device: an engine behind its endpoint, and the queues given out. Alive as long as one of its
/// queues is, even after it left the registry.
class Device {
 public:
  Device(DeviceTraits traits, std::unique_ptr<Engine> engine,
         std::unique_ptr<pcie::Endpoint> endpoint, std::shared_ptr<Host> host);
  ~Device();

  const DeviceTraits& traits() const { return traits_; }
  Engine& engine() { return *engine_; }
  pcie::Endpoint& endpoint() { return *endpoint_; }
  std::uint32_t flags() const { return traits_.sva ? TANDEM_DEVICE_SVA : 0; }
  bool offers(const std::string& algorithm_or_name) const;

  /// Notes that `queue` of client `client` uses the device.
  /// Errors: ENODEV removed, EMFILE no queue left, EBUSY another client on a device without SVA.
  Result<void> add(Queue& queue, std::uint64_t client);
  /// Ends that and keeps the queue's totals.
  void remove(Queue& queue);
  std::uint32_t queues_used() const;

  /// From now on add() fails; returns the queues there are.
  std::vector<std::shared_ptr<Queue>> close();
  bool closed() const { return closed_.load(std::memory_order_relaxed); }
  /// Forgets the endpoint at the host; no queue runs any more.
  void detach();
  tandem_devices_reply describe(std::uint32_t engines) const;

 private:
  const DeviceTraits traits_;
  const std::shared_ptr<Host> host_;
  const std::unique_ptr<Engine> engine_;
  const std::unique_ptr<pcie::Endpoint> endpoint_;
  std::atomic<bool> closed_{false};  // set by close(); read by engine threads to drop workers
  mutable Mutex mutex_;
  bool detached_ TANDEM_GUARDED_BY(mutex_) = false;
  std::map<Queue*, std::uint64_t> queues_ TANDEM_GUARDED_BY(mutex_);  // → client
  std::uint64_t retired_operations_ TANDEM_GUARDED_BY(mutex_) = 0;
  std::uint64_t retired_bytes_ TANDEM_GUARDED_BY(mutex_) = 0;
};

/// The devices there are, by name and by algorithm. Looking takes no lock.
class Registry {
 public:
  Registry() = default;
  ~Registry();
  /// Errors: EEXIST a device of that name; EINVAL traits that do not fit the ABI.
  Result<void> add(std::shared_ptr<Device> device);
  /// Whether `traits` fit the ABI's fixed-size fields.
  static bool valid(const DeviceTraits& traits);
  /// Takes a device out; waits for those that look. Errors: ENOENT.
  Result<std::shared_ptr<Device>> take(const std::string& name);
  Result<std::shared_ptr<Device>> by_name(const std::string& name) const;
  /// The device of that name, else the one with that algorithm that has the fewest queues.
  Result<std::shared_ptr<Device>> find(const std::string& algorithm_or_name) const;
  std::vector<std::shared_ptr<Device>> all() const;

 private:
  struct Entry : rcu::list_link<> {
    explicit Entry(std::shared_ptr<Device> of) : device(std::move(of)) {}
    const std::shared_ptr<Device> device;
  };

  Entry* entry(const std::string& name) const;

  Mutex mutex_;
  rcu::rcu_list<Entry> devices_;  // owning; changed under mutex_, read in sections
};

}  // namespace tandem::uacce::detail
