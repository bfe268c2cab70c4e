// SPDX-License-Identifier: Apache-2.0
/// Devices in the application's own process: the client library's transport by direct call.
///
/// The framework and its engine threads start with the first queue and stop when the process exits.
/// Engines reach ordinary memory directly. With no engine threads (inline) the calling thread runs
/// its own requests when it asks for results.
///
/// Fork: the child's first use starts devices of its own. The parent's framework is never touched
/// in the child, not even to destroy it: its threads do not exist there.
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "tandem/base/cpu.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/engine/comp/comp.hpp"
#include "tandem/engine/kxo/kxo.hpp"
#include "tandem/engine/mem/mem.hpp"
#include "tandem/trace/trace.hpp"
#include "tandem/uacce/framework.hpp"
#include "tandem/wd/transport.hpp"

namespace tandem::embedded {
namespace {

constexpr int kMostEngineThreads = 8;

/// Half of the CPUs that the process may use: the other half is the application's.
int engine_threads() { return std::clamp(usable_cpus() / 2, 1, kMostEngineThreads); }

/// A framework with its devices, and this process as its only client.
struct Devices {
  std::unique_ptr<uacce::Framework> framework;
  std::unique_ptr<uacce::Client> client;  // goes first

  ~Devices() {
    client.reset();
    framework.reset();
  }
};

Result<std::shared_ptr<Devices>> start_devices(bool in_caller) {
  uacce::Framework::Options options;
  options.engine_threads = in_caller ? 0 : engine_threads();
  auto devices = std::make_shared<Devices>();
  auto framework = uacce::Framework::create(options);
  if (!framework) return Unexpected{framework.error()};
  devices->framework = std::move(*framework);
  engine::kxo::Options games;
  games.threads = options.engine_threads;
  std::unique_ptr<uacce::Engine> engines[] = {engine::mem::make_engine("mem-0"),
                                              engine::comp::make_engine("comp-0"),
                                              engine::kxo::make_engine("kxo", std::move(games))};
  for (auto& engine : engines) {
    if (auto added = devices->framework->add_device(std::move(engine)); !added) {
      return Unexpected{added.error()};
    }
  }
  uacce::MmAccess access;
  access.kind = uacce::MmAccess::Kind::kSelf;
  auto client = devices->framework->connect(::getuid(), std::move(access));
  if (!client) return Unexpected{client.error()};
  devices->client = std::move(*client);
  TANDEM_TRACE(pasid_bind, devices->client->pasid().value, ::getpid());
  return devices;
}

class EmbeddedTransport;

/// The transports of this process and of those it was forked from; found at exit. Nodes are never
/// removed, so that no lock is needed: a forked child may not take one of its parent's.
struct Node {
  std::atomic<EmbeddedTransport*> transport{nullptr};  // its own destructor clears it
  pid_t process = 0;
  Node* next = nullptr;
};
constinit std::atomic<Node*> all_transports{nullptr};  // pushed by any thread, walked at exit

class EmbeddedTransport final : public wd::Transport {
 public:
  static Result<std::unique_ptr<Transport>> create(bool in_caller) {
    auto devices = start_devices(in_caller);
    if (!devices) return Unexpected{devices.error()};
    auto wake = (*devices)->client->wake_descriptor();
    if (!wake) return Unexpected{wake.error()};
    return std::unique_ptr<Transport>(
        new EmbeddedTransport(std::move(*devices), std::move(*wake), in_caller));
  }
  ~EmbeddedTransport() override {
    node_->transport.store(nullptr, std::memory_order_release);
    stop();
  }

  /// Stops the engine threads and lets go of everything; later calls say ESHUTDOWN.
  void stop() {
    std::shared_ptr<Devices> last;
    const MutexLock lock(mutex_);
    last = std::exchange(devices_, nullptr);
  }

  Result<tandem_open_reply> open(const std::string& algorithm, std::uint32_t depth) override {
    return with_client([&](uacce::Client& client) -> Result<tandem_open_reply> {
      auto info = client.open(algorithm, depth);
      if (!info) return Unexpected{info.error()};
      tandem_open_reply reply{};
      const std::size_t length = std::min(info->device.size(), sizeof reply.device - 1);
      std::memcpy(reply.device, info->device.data(), length);
      reply.queue = info->queue;
      reply.depth = info->depth;
      reply.device_flags = info->device_flags;
      reply.region_mmio_size = info->region_mmio_size;
      reply.region_dus_size = info->region_dus_size;
      return reply;
    });
  }
  Result<UniqueFd> map(std::uint32_t queue, std::uint32_t region, std::uint64_t size) override {
    return with_client([&](uacce::Client& client) { return client.map(queue, region, size); });
  }
  Result<void> start(std::uint32_t queue) override {
    return with_client([&](uacce::Client& client) { return client.start(queue); });
  }
  Result<void> put(std::uint32_t queue) override {
    return with_client([&](uacce::Client& client) { return client.put(queue); });
  }
  Result<void> hold(std::uint32_t queue, bool keep_awake) override {
    return with_client([&](uacce::Client& client) { return client.hold(queue, keep_awake); });
  }
  Result<UniqueFd> event(std::uint32_t queue) override {
    return with_client([&](uacce::Client& client) { return client.event(queue); });
  }
  Result<Reserved> reserve(std::uint64_t size_bytes) override {
    return with_client([&](uacce::Client& client) -> Result<Reserved> {
      auto info = client.reserve(size_bytes);
      if (!info) return Unexpected{info.error()};
      return Reserved{info->id, info->size_bytes, std::move(info->fd)};
    });
  }
  Result<void> attach(std::uint64_t id, std::uint64_t address) override {
    return with_client([&](uacce::Client& client) { return client.attach_reserved(id, address); });
  }
  Result<void> release(std::uint64_t id) override {
    return with_client([&](uacce::Client& client) { return client.release_reserved(id); });
  }
  Result<std::vector<tandem_devices_reply>> devices() override {
    const auto running = this->running();
    if (!running) return errno_error(ESHUTDOWN);
    return running->framework->devices();
  }
  Result<tandem_stats_reply> stats() override {
    return with_client(
        [](uacce::Client& client) -> Result<tandem_stats_reply> { return client.stats(); });
  }

  void wake() noexcept override {
    const std::uint64_t one = 1;
    // A full counter means that the engine has been told already.
    [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
  }
  bool runs_in_caller() const noexcept override { return in_caller_; }
  void run_in_caller(std::uint32_t queue) noexcept override {
    if (const auto running = this->running()) (void)running->client->run_in_caller(queue);
  }
  bool reaches_ordinary_memory() const noexcept override { return true; }
  bool alive() noexcept override { return running() != nullptr; }

 private:
  EmbeddedTransport(std::shared_ptr<Devices> devices, UniqueFd wake, bool in_caller)
      : devices_(std::move(devices)),
        wake_(std::move(wake)),
        in_caller_(in_caller),
        node_(new Node) {
    node_->process = ::getpid();
    node_->transport.store(this, std::memory_order_release);
    node_->next = all_transports.load(std::memory_order_relaxed);
    while (!all_transports.compare_exchange_weak(node_->next, node_, std::memory_order_release,
                                                 std::memory_order_relaxed)) {
    }
  }

  std::shared_ptr<Devices> running() {
    const MutexLock lock(mutex_);
    return devices_;
  }
  template <class Call>
  auto with_client(Call&& call) -> decltype(call(std::declval<uacce::Client&>())) {
    const auto running = this->running();
    if (!running) return errno_error(ESHUTDOWN);
    return call(*running->client);
  }

  Mutex mutex_;
  std::shared_ptr<Devices> devices_ TANDEM_GUARDED_BY(mutex_);
  const UniqueFd wake_;
  const bool in_caller_;
  Node* const node_;
};

/// Registers when it is loaded, and at exit stops what still runs, before the objects that engine
/// threads use are gone.
struct Registration {
  Registration() { wd::wd_register_embedded(&EmbeddedTransport::create); }
  ~Registration() {
    const pid_t here = ::getpid();
    for (Node* node = all_transports.load(std::memory_order_acquire); node != nullptr;
         node = node->next) {
      EmbeddedTransport* const transport = node->transport.load(std::memory_order_acquire);
      if (transport != nullptr && node->process == here) transport->stop();
    }
  }
} registration;

}  // namespace
}  // namespace tandem::embedded

/// What `-u` names so that a linker keeps this file of a static library, or this shared library.
extern "C" __attribute__((visibility("default"))) const int tandem_embedded_anchor;
const int tandem_embedded_anchor = 1;
