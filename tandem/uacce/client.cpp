// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <new>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/uacce/detail/framework_state.hpp"

namespace tandem::uacce {
namespace {

/// How long put() waits for an operation; well below what clients of a broker wait for an answer.
constexpr std::chrono::milliseconds kPutLimit{4000};

/// How many handles of put queues a client is told about; older ones are unknown.
constexpr std::size_t kRememberedPuts = 1024;

/// When what there was no memory for is tried again: the end of a client has to be had.
constexpr std::chrono::milliseconds kMemoryAgain{10};

template <class What>
auto once_there_is_memory(What what) {
  for (;;) {
    try {
      return what();
    } catch (const std::bad_alloc&) {
      std::this_thread::sleep_for(kMemoryAgain);
    }
  }
}

/// Both shared regions of a queue.
std::uint64_t ring_bytes(std::uint32_t depth) {
  return kPageSize + detail::Queue::rings_region_size(depth);
}

}  // namespace

Client::Client(std::shared_ptr<State> state) : state_(std::move(state)) {}
Client::~Client() { disconnect(TANDEM_QUEUE_OWNER_GONE); }

Result<std::shared_ptr<detail::Queue>> Client::State::find(std::uint32_t queue) {
  const MutexLock lock(mutex);
  if (!connected) return errno_error(ESHUTDOWN);
  const auto at = queues.find(queue);
  if (at != queues.end()) return at->second;
  const bool put = std::find(put_queues.begin(), put_queues.end(), queue) != put_queues.end();
  return errno_error(put ? EINVAL : ENOENT);
}

void Client::State::give_back(detail::Queue& queue) {
  queue.device().remove(queue);
  detail::Tenant::give_back(engagement->tenant->queues, 1u);
  detail::Tenant::give_back(engagement->tenant->ring_bytes, ring_bytes(queue.depth()));
}

Result<QueueInfo> Client::open(const std::string& algorithm_or_device, std::uint32_t depth) {
  auto& framework = *state_->framework;
  auto& tenant = *state_->engagement->tenant;
  if (!std::has_single_bit(depth) || depth < TANDEM_MIN_DEPTH || depth > TANDEM_MAX_DEPTH) {
    return errno_error(EINVAL);
  }
  {
    const MutexLock lock(state_->mutex);
    if (!state_->connected) return errno_error(ESHUTDOWN);
  }
  auto device = framework.registry.find(algorithm_or_device);
  if (!device) return Unexpected{device.error()};
  if (tenant.expelled()) framework.scheduler->collect_returned();
  if (tenant.expelled() ||
      !detail::Tenant::take(tenant.queues, 1u, framework.options.queues_per_tenant)) {
    return errno_error(EMFILE);
  }
  if (!detail::Tenant::take(tenant.ring_bytes, ring_bytes(depth),
                            framework.options.ring_bytes_per_tenant)) {
    detail::Tenant::give_back(tenant.queues, 1u);
    return errno_error(ENOMEM);
  }
  struct Taken {  // given back unless there is a queue, also where there is no memory for one
    State& state;
    std::uint32_t depth;
    std::shared_ptr<detail::Queue> added;
    bool kept = false;
    ~Taken() {
      if (kept) return;
      if (added != nullptr) {
        state.give_back(*added);
      } else {
        detail::Tenant::give_back(state.engagement->tenant->queues, 1u);
        detail::Tenant::give_back(state.engagement->tenant->ring_bytes, ring_bytes(depth));
      }
    }
  } taken{*state_, depth, nullptr};
  // A device without SVA knows no page requests: it reaches what was given to it, nothing else.
  auto space = (*device)->traits().sva ? Result<std::shared_ptr<detail::Mm>>(state_->mm)
                                       : state_->reserved_space();
  if (!space) return Unexpected{space.error()};
  detail::Queue::Setup setup;
  setup.id = framework.next_queue.fetch_add(1, std::memory_order_relaxed);
  setup.depth = depth;
  setup.device = *device;
  setup.engagement = state_->engagement;
  setup.mm = std::move(*space);
  const auto created = detail::Queue::create(std::move(setup));
  if (!created) return Unexpected{created.error()};
  const std::shared_ptr<detail::Queue>& queue = *created;
  const auto admitted = (*device)->add(*queue, state_->engagement->id);
  if (!admitted) return Unexpected{admitted.error()};
  taken.added = queue;
  {
    const MutexLock lock(state_->mutex);
    if (!state_->connected) return errno_error(ESHUTDOWN);
    state_->queues.emplace(queue->id(), queue);
    taken.kept = true;
  }
  QueueInfo info;
  info.queue = queue->id();
  info.device = (*device)->traits().name;
  info.depth = depth;
  info.device_flags = (*device)->flags();
  info.region_mmio_size = kPageSize;
  info.region_dus_size = detail::Queue::rings_region_size(depth);
  return info;
}

Result<UniqueFd> Client::map(std::uint32_t queue, std::uint32_t region, std::uint64_t size_bytes) {
  auto found = state_->find(queue);
  if (!found) return Unexpected{found.error()};
  return (*found)->map(region, size_bytes);
}

Result<void> Client::start(std::uint32_t queue) {
  auto found = state_->find(queue);
  if (!found) return Unexpected{found.error()};
  if (auto started = (*found)->start(); !started) return started;
  state_->framework->scheduler->start(*found);
  return {};
}

Result<void> Client::put(std::uint32_t queue) {
  auto found = state_->find(queue);
  if (!found) {
    if (found.error() == std::errc::invalid_argument) return {};  // put before
    return Unexpected{found.error()};
  }
  (*found)->die(TANDEM_QUEUE_PUT);
  const auto& framework = *state_->framework;
  if (framework.scheduler->let_go(*found, std::min(framework.let_go_limit(), kPutLimit))) {
    state_->finish_put(*found);
    return {};
  }
  state_->framework->reaper.add([state = state_, ending = *found] {
    if (state->framework->scheduler->runs(*ending)) return false;
    state->finish_put(ending);
    return true;
  });
  return errno_error(ETIMEDOUT);
}

void Client::State::finish_put(const std::shared_ptr<detail::Queue>& queue) {
  const bool given_up = framework->scheduler->given_up(*queue);
  const MutexLock lock(mutex);
  if (queues.erase(queue->id()) == 0) return;  // another put, or disconnect, was faster
  retired += queue->counters().read();
  if (given_up) {
    leaving.push_back(queue);
  } else {
    give_back(*queue);
  }
  put_queues.push_back(queue->id());
  if (put_queues.size() > kRememberedPuts) put_queues.erase(put_queues.begin());
}

Result<void> Client::hold(std::uint32_t queue, bool keep_awake) {
  auto found = state_->find(queue);
  if (!found) return Unexpected{found.error()};
  if ((*found)->dead()) return errno_error(EINVAL);
  state_->framework->scheduler->hold(*found, keep_awake);
  return {};
}

Result<UniqueFd> Client::event(std::uint32_t queue) {
  auto found = state_->find(queue);
  if (!found) return Unexpected{found.error()};
  return (*found)->event();
}

Result<ReservedInfo> Client::reserve(std::uint64_t size_bytes) {
  auto& tenant = *state_->engagement->tenant;
  const std::uint64_t most = state_->framework->options.reserved_bytes_per_tenant;
  if (size_bytes == 0) return errno_error(EINVAL);
  if (size_bytes > most) return errno_error(ENOMEM);
  const std::uint64_t size = round_up_to_page(size_bytes);
  if (!detail::Tenant::take(tenant.reserved_bytes, size, most)) return errno_error(ENOMEM);
  auto memory = state_->mm->reserve(size);
  Result<UniqueFd> fd = errno_error(EBADF);
  if (memory) {
    fd = UniqueFd(::fcntl(detail::Mm::descriptor(**memory).get(), F_DUPFD_CLOEXEC, 0));
    if (!*fd) fd = last_errno();
  }
  const MutexLock lock(state_->mutex);
  if (!memory || !fd || !state_->connected) {
    detail::Tenant::give_back(tenant.reserved_bytes, size);
    if (!memory) return Unexpected{memory.error()};
    if (!fd) return Unexpected{fd.error()};
    return errno_error(ESHUTDOWN);
  }
  ReservedInfo info;
  info.id = state_->next_reserved++;
  info.size_bytes = size;
  info.fd = std::move(*fd);
  state_->reserved.emplace(info.id, State::Reserved{std::move(*memory), size, 0, false, {}});
  state_->reserved_bytes += size;
  return info;
}

Result<void> Client::attach_reserved(std::uint64_t id, std::uint64_t address) {
  const MutexLock lock(state_->mutex);
  if (!state_->connected) return errno_error(ESHUTDOWN);
  const auto at = state_->reserved.find(id);
  if (at == state_->reserved.end()) return errno_error(ENOENT);
  if (at->second.attached) return errno_error(EINVAL);
  return state_->attach_locked(at->second, address);
}

std::vector<std::shared_ptr<detail::Mm>> Client::State::spaces_locked() const {
  std::vector<std::shared_ptr<detail::Mm>> all = {mm};
  if (reserved_mm != nullptr) all.push_back(reserved_mm);
  return all;
}

std::vector<std::shared_ptr<detail::Mm>> Client::State::spaces() const {
  const MutexLock lock(mutex);
  return spaces_locked();
}

Result<std::shared_ptr<detail::Mm>> Client::State::reserved_space() {
  const MutexLock lock(mutex);
  if (!connected) return errno_error(ESHUTDOWN);
  if (reserved_mm != nullptr) return reserved_mm;
  auto bound = framework->host->bind({}, {engagement->tenant, &engagement->tenant->tables});
  if (!bound) return bound;
  for (const auto& [id, entry] : reserved) {
    if (!entry.attached) continue;
    const auto attached = (*bound)->attach(entry.memory, entry.address);
    if (!attached) return Unexpected{attached.error()};
  }
  reserved_mm = std::move(*bound);
  return reserved_mm;
}

Result<void> Client::State::attach_locked(Reserved& entry, std::uint64_t address) {
  const auto all = spaces_locked();
  for (std::size_t i = 0; i < all.size(); ++i) {
    auto attached = all[i]->attach(entry.memory, address);
    if (attached) continue;
    while (i-- > 0) (void)all[i]->detach(*entry.memory);
    return attached;
  }
  entry.attached = true;
  entry.address = address;
  return {};
}

Result<void> Client::State::detach_locked(Reserved& entry) {
  if (!std::exchange(entry.attached, false)) return {};
  Result<void> detached;
  for (const auto& space : spaces_locked()) {
    if (auto result = space->detach(*entry.memory); !result) detached = result;
  }
  if (detached) return detached;
  // Translations are gone: only operations that run now can still have the memory mapped.
  const auto note = [&](const std::shared_ptr<detail::Queue>& queue) {
    const std::uint64_t operations = queue->counters().read().operations;
    if (framework->scheduler->runs(*queue) || framework->scheduler->given_up(*queue)) {
      entry.users.push_back({queue, operations});
    }
  };
  for (const auto& [id, queue] : queues) note(queue);
  for (const auto& queue : leaving) note(queue);
  return detached;
}

/// A queue counts operations when a thread leaves it, so a count that grew says that the thread
/// which was there then has left. Asked in this order: see Scheduler::runs().
bool Client::State::over(const std::vector<Running>& users) const {
  const auto& scheduler = *framework->scheduler;
  return std::all_of(users.begin(), users.end(), [&](const Running& running) {
    const bool left = running.queue->counters().read().operations != running.operations ||
                      !scheduler.runs(*running.queue);
    return left && !scheduler.given_up(*running.queue);
  });
}

Result<void> Client::detach_reserved(std::uint64_t id) {
  const MutexLock lock(state_->mutex);
  if (!state_->connected) return errno_error(ESHUTDOWN);
  const auto at = state_->reserved.find(id);
  if (at == state_->reserved.end()) return errno_error(ENOENT);
  if (!at->second.attached) return errno_error(EINVAL);
  return state_->detach_locked(at->second);
}

Result<void> Client::release_reserved(std::uint64_t id) {
  const MutexLock lock(state_->mutex);
  if (!state_->connected) return errno_error(ESHUTDOWN);
  const auto at = state_->reserved.find(id);
  if (at == state_->reserved.end()) return errno_error(ENOENT);
  (void)state_->detach_locked(at->second);  // entry.users says what came of it
  State::Reserved entry = std::move(at->second);
  state_->reserved.erase(at);
  state_->reserved_bytes -= entry.size_bytes;
  auto free = [state = state_, spaces = state_->spaces_locked(), entry = std::move(entry)] {
    if (!state->over(entry.users)) return false;
    for (const auto& space : spaces) space->forget(*entry.memory);
    detail::Tenant::give_back(state->engagement->tenant->reserved_bytes, entry.size_bytes);
    return true;
  };
  if (free()) return {};
  state_->framework->reaper.add(std::move(free));
  return errno_error(ETIMEDOUT);
}

Result<std::size_t> Client::run_in_caller(std::uint32_t queue) {
  auto& scheduler = *state_->framework->scheduler;
  if (!scheduler.inline_mode()) return errno_error(EINVAL);
  auto found = state_->find(queue);
  if (!found) return Unexpected{found.error()};
  if ((*found)->state() != QueueState::kStarted) return errno_error(EINVAL);
  return scheduler.run_here(**found);
}

Result<UniqueFd> Client::wake_descriptor() const {
  UniqueFd fd(::fcntl(state_->engagement->wake.get(), F_DUPFD_CLOEXEC, 0));
  if (!fd) return last_errno();
  return fd;
}

tandem_stats_reply Client::stats() const {
  const MutexLock lock(state_->mutex);
  detail::QueueCounters::Values sum = state_->retired;
  for (const auto& [id, queue] : state_->queues) sum += queue->counters().read();
  tandem_stats_reply reply{};
  reply.operations = sum.operations;
  reply.faults = sum.faults;
  reply.bytes_zero_copy = sum.bytes_zero_copy;
  reply.bytes_copied = sum.bytes_copied;
  reply.translations = sum.translations;
  reply.translation_hits = sum.translation_hits;
  for (const auto& space : state_->spaces_locked()) {
    reply.page_faults += space->stats().page_faults;
  }
  reply.queues = state_->queues.size();
  reply.reserved_bytes = state_->reserved_bytes;
  return reply;
}

iommu::Pasid Client::pasid() const { return state_->mm->pasid(); }
Result<void> Client::read_memory(std::uint64_t address, std::span<std::byte> to) const {
  return state_->mm->read(address, to);
}
bool Client::alive() const { return state_->mm->alive(); }
Client::Ended Client::disconnect(tandem_queue_state reason) { return state_->disconnect(reason); }

void Client::revoke_page(std::uint64_t address, bool refuse) {
  for (const auto& space : state_->spaces()) space->revoke_page(address, refuse);
}

/// Ends everything of this client. The queues die before anything is waited for, so nothing new
/// starts; what an operation uses that does not end within the limit is left to the reaper.
Client::Ended Client::State::disconnect(tandem_queue_state reason) {
  using Queues = std::vector<std::shared_ptr<detail::Queue>>;
  Ended ended;
  const auto ending = once_there_is_memory([&]() -> std::optional<Queues> {
    const MutexLock lock(mutex);
    if (!connected) return std::nullopt;
    Queues all;
    all.reserve(leaving.size() + queues.size());
    leaving.reserve(all.capacity());  // the last that may fail
    connected = false;
    for (const auto& [id, queue] : queues) leaving.push_back(queue);
    queues.clear();
    all = leaving;
    ended.reserved_bytes_kept = reserved_bytes;
    return all;
  });
  if (!ending) return ended;
  for (const auto& queue : *ending) (void)queue->die(reason);
  const auto deadline = std::chrono::steady_clock::now() + framework->let_go_limit();
  for (const auto& queue : *ending) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    (void)framework->scheduler->let_go(queue, std::max(left, std::chrono::milliseconds(0)));
  }
  framework->scheduler->disengage(*engagement);
  once_there_is_memory([&] {
    if (finish(ended)) return;
    framework->reaper.add([self = shared_from_this()] {
      Ended later;
      return self->finish(later);
    });
  });
  return ended;
}

bool Client::State::finish(Ended& ended) {
  auto& scheduler = *framework->scheduler;
  std::vector<std::shared_ptr<detail::Queue>> ending;
  {
    const MutexLock lock(mutex);
    ending = leaving;
  }
  bool running = false;
  for (const auto& queue : ending) {
    running |= scheduler.runs(*queue);
    ended.stuck |= scheduler.given_up(*queue);
  }
  const auto all = spaces();
  for (const auto& space : all) {
    if (!ended.stuck) continue;
    space->condemn();
    (void)space->unbind();
  }
  if (running || ended.stuck) return false;
  for (const auto& queue : ending) queue->announce();
  // Nothing of ours runs; somebody else's access may, for a page request of ours.
  for (const auto& space : all) ended.stuck |= !space->unbind() && !space->reclaim();
  if (ended.stuck) return false;
  scheduler.collect_returned();
  {
    const MutexLock lock(mutex);
    leaving.clear();
    reserved.clear();
    ended.reserved_bytes_freed = std::exchange(reserved_bytes, 0);
  }
  ended.reserved_bytes_kept = 0;
  for (const auto& queue : ending) give_back(*queue);
  detail::Tenant::give_back(engagement->tenant->reserved_bytes, ended.reserved_bytes_freed);
  framework->cleaned_clients.fetch_add(1, std::memory_order_relaxed);
  framework->cleaned_queues.fetch_add(ending.size(), std::memory_order_relaxed);
  framework->cleaned_reserved.fetch_add(ended.reserved_bytes_freed, std::memory_order_relaxed);
  framework->forget(engagement->id, user, engagement->tenant->id);
  return true;
}

}  // namespace tandem::uacce
