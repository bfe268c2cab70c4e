// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/framework.hpp"

#include <sys/eventfd.h>

#include <algorithm>
#include <utility>

#include "tandem/uacce/detail/framework_state.hpp"

namespace tandem::uacce {

Result<std::shared_ptr<detail::Tenant>> Framework::State::tenant(std::uint32_t id,
                                                                 std::uint32_t user) {
  const MutexLock lock(mutex);
  if (closed) return errno_error(ESHUTDOWN);
  auto& entry = tenants[{user, id}];
  if (!entry.tenant) {
    auto account = users[user].lock();
    if (!account) users[user] = account = std::make_shared<detail::UserAccount>();
    entry.tenant =
        std::make_shared<detail::Tenant>(id, std::move(account), options.table_bytes_per_tenant);
  }
  ++entry.clients;
  return entry.tenant;
}

void Framework::State::forget(std::uint64_t client, std::uint32_t user, std::uint32_t tenant) {
  const MutexLock lock(mutex);
  clients.erase(client);
  const auto at = tenants.find({user, tenant});
  if (--at->second.clients == 0) tenants.erase(at);
  std::erase_if(users, [](const auto& entry) { return entry.second.expired(); });
}

Result<std::unique_ptr<Framework>> Framework::create(Options options) {
  if (options.stuck_after.count() <= 0 || options.spin_before_park.count() < 0) {
    return errno_error(EINVAL);
  }
  auto state = std::make_shared<State>(options);
  auto host = detail::Host::create();
  if (!host) return Unexpected{host.error()};
  state->host = std::move(*host);
  auto scheduler = detail::Scheduler::create(options.engine_threads, options.spin_before_park,
                                             options.stuck_after);
  if (!scheduler) return Unexpected{scheduler.error()};
  state->scheduler = std::move(*scheduler);
  return std::unique_ptr<Framework>(new Framework(std::move(state)));
}

Framework::~Framework() {
  std::vector<std::shared_ptr<Client::State>> clients;
  {
    const MutexLock lock(state_->mutex);
    state_->closed = true;
    for (const auto& [id, weak] : state_->clients) {
      if (auto client = weak.lock()) clients.push_back(std::move(client));
    }
  }
  for (const auto& client : clients) client->disconnect(TANDEM_QUEUE_DEVICE_REMOVED);
  for (const auto& device : state_->registry.all()) {
    (void)remove_device(device->traits().name);
  }
  // What operations still use now stays until their threads have ended, with the scheduler.
  state_->reaper.stop();
}

Result<void> Framework::add_device(std::unique_ptr<Engine> engine) {
  DeviceTraits traits = engine->traits();
  if (!detail::Registry::valid(traits)) return errno_error(EINVAL);
  if (state_->registry.by_name(traits.name)) return errno_error(EEXIST);
  auto endpoint = state_->host->add_endpoint();
  if (!endpoint) return Unexpected{endpoint.error()};
  return state_->registry.add(std::make_shared<detail::Device>(std::move(traits), std::move(engine),
                                                               std::move(*endpoint), state_->host));
}

Result<void> Framework::remove_device(const std::string& name) {
  auto device = state_->registry.take(name);
  if (!device) return Unexpected{device.error()};
  const auto queues = (*device)->close();
  for (const auto& queue : queues) queue->die(TANDEM_QUEUE_DEVICE_REMOVED);
  for (const auto& queue : queues) {
    (void)state_->scheduler->let_go(queue, state_->let_go_limit());
  }
  state_->scheduler->purge();
  (*device)->detach();
  return {};
}

std::vector<tandem_devices_reply> Framework::devices() const {
  const auto engines = static_cast<std::uint32_t>(std::max(1, state_->scheduler->threads()));
  std::vector<tandem_devices_reply> replies;
  for (const auto& device : state_->registry.all()) replies.push_back(device->describe(engines));
  return replies;
}

Result<std::unique_ptr<Client>> Framework::connect(std::uint32_t tenant_id, MmAccess access,
                                                   std::optional<std::uint32_t> user) {
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return last_errno();
  const std::uint32_t of_user = user.value_or(tenant_id);
  auto tenant = state_->tenant(tenant_id, of_user);
  if (!tenant) return Unexpected{tenant.error()};
  const std::uint64_t id = state_->next_client.fetch_add(1, std::memory_order_relaxed);
  auto mm = state_->host->bind(std::move(access), {*tenant, &(*tenant)->tables});
  if (!mm) {
    state_->forget(id, of_user, tenant_id);
    return Unexpected{mm.error()};
  }
  auto engagement = std::make_shared<detail::Engagement>(id, *tenant, std::move(wake));
  auto client =
      std::make_shared<Client::State>(state_, std::move(*mm), std::move(engagement), of_user);
  {
    const MutexLock lock(state_->mutex);
    state_->clients.emplace(id, client);
  }
  std::unique_ptr<Client> handle(new Client(client));  // from here on, failing disconnects
  if (auto engaged = state_->scheduler->engage(client->engagement); !engaged) {
    return Unexpected{engaged.error()};
  }
  return handle;
}

iommu::Stats Framework::iommu_stats() const { return state_->host->iommu().stats(); }

Result<void> Framework::set_tap(const std::string& name, pcie::Endpoint::Tap tap) {
  auto device = state_->registry.by_name(name);
  if (!device) return Unexpected{device.error()};
  (*device)->endpoint().set_tap(std::move(tap));
  return {};
}

std::vector<std::string> Framework::describe_walk(iommu::Pasid pasid, std::uint64_t address) const {
  return state_->host->describe_walk(pasid, address);
}

Framework::Cleanup Framework::cleanup() const {
  Cleanup cleanup;
  cleanup.clients = state_->cleaned_clients.load(std::memory_order_relaxed);
  cleanup.queues = state_->cleaned_queues.load(std::memory_order_relaxed);
  cleanup.reserved_bytes = state_->cleaned_reserved.load(std::memory_order_relaxed);
  cleanup.page_tables = state_->host->freed_table_pages();
  cleanup.quarantined_pasids = state_->host->quarantined_pasids();
  return cleanup;
}

}  // namespace tandem::uacce
